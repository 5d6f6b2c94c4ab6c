// The two wires between a host and the board, bit by bit, in clock cycles and fractions of them; and what goes wrong.
#pragma once

#include <cstdint>
#include <deque>
#include <random>
#include <string>

// Rates of faults: of a bit to be inverted, of a byte to be lost, doubled, or to come after a random one.
struct Faults {
    double flip = 0, drop = 0, duplicate = 0, insert = 0;
};

class Dice {
public:
    explicit Dice(uint64_t seed) : engine_(seed) {}
    bool roll(double rate) { return rate > 0 && static_cast<double>(engine_() >> 11) * 0x1p-53 < rate; }
    uint8_t byte() { return static_cast<uint8_t>(engine_() >> 32); }

private:
    std::mt19937_64 engine_;
};

// A byte, and the bits in which it is sent.
struct Timing {
    double bit = 1;      // clock cycles
    int stop_bits = 1;
};

// From the host to the board.
class Sender {
public:
    Sender(Faults& faults, Dice& dice) : faults_(faults), dice_(dice) {}
    void queue(uint8_t byte, Timing timing);
    void forget() { queue_.clear(); queued_cycles_ = 0; }  // but for the byte that is on the wire
    bool level(uint64_t now);
    bool idle() const { return idle_ && queue_.empty(); }
    std::size_t queued() const { return queue_.size(); }
    double pending(uint64_t now) const;  // clock cycles until all is sent
    uint64_t sent() const { return sent_; }

private:
    struct Item { uint8_t byte; Timing timing; };
    static double cycles(const Item& item) { return item.timing.bit * (9 + item.timing.stop_bits); }
    bool begin(uint64_t now);

    Faults& faults_;
    Dice& dice_;
    std::deque<Item> queue_;
    double queued_cycles_ = 0;
    bool idle_ = true, level_ = true, doubled_ = false;
    double edge_ = 0, bit_ = 1;
    uint32_t pattern_ = 0;
    int left_ = 0;
    uint64_t sent_ = 0;
};

// From the board to the host: samples in the middle of bits, by the host's clock.
class Receiver {
public:
    Receiver(Faults& faults, Dice& dice) : faults_(faults), dice_(dice) {}
    void sample(uint64_t now, bool level);
    bool idle() const { return state_ == State::kIdle; }
    void speed(double bit) { bit_ = bit; }
    std::string take(std::size_t most);
    std::size_t received() const { return received_.size(); }

private:
    enum class State { kIdle, kByte, kLow };
    void deliver(uint8_t byte);

    Faults& faults_;
    Dice& dice_;
    std::string received_;
    State state_ = State::kIdle;
    double bit_ = 1, byte_bit_ = 1, next_ = 0;
    int count_ = 0;
    uint32_t shift_ = 0;
};
