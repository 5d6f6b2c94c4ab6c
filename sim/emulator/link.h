// Host's side of the line, the line and the board, in time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "board.h"
#include "line.h"

enum class Trouble : uint8_t {
    kReset = 0,  // of the board
    kLow = 1,    // the line to the board is low for a while
    kCut = 2,    // nothing passes for a while, in neither direction
};

// What happens when so many bytes have been sent to the board.
struct Event {
    uint64_t bytes;
    Trouble trouble;
    double cycles;
};

class Link {
public:
    static constexpr uint64_t kEver = ~0ull;

    Link(int seed, double clock_hz);
    double clock_hz() const { return clock_hz_; }
    // The host's speed, in bits a second: of bytes that are queued from now on, and of what is received.
    void speed(double baud, int stop_bits = 1);
    void queue(const std::string& bytes);
    void forget() { sender_.forget(); }
    std::size_t queued() const { return sender_.queued(); }
    double pending() const { return sender_.pending(now_); }
    void trouble(const Event& event);
    void faults(const Faults& to_board, const Faults& to_host, uint64_t seed);
    // Ends all faults and troubles, present and to come.
    void calm();
    void reset();

    // Goes on until `until`, or, if asked, until bytes have come to the host: as many as come without a pause, up to
    // those that a UART gathers before it tells.
    void run(uint64_t until, bool until_byte);
    std::string take(std::size_t most) { return receiver_.take(most); }
    bool nothing_received() const { return !receiver_.received(); }
    // Nothing will happen any more unless the host sends something.
    bool resting() const { return quiet() && rest_.period(); }

    uint64_t now() const { return now_; }
    uint64_t simulated() const { return simulated_; }
    uint64_t sent() const { return sender_.sent(); }
    bool busy() const { return board_.busy(); }

private:
    static constexpr std::size_t kGathered = 16;
    static constexpr double kPauseBits = 1.5;
    bool quiet() const;
    bool told() const;
    void step();
    void happen();

    double clock_hz_;
    Board board_;
    Rest rest_;
    Dice dice_;
    Faults to_board_, to_host_;
    Sender sender_;
    Receiver receiver_;
    Timing timing_;
    std::vector<Event> events_;
    uint64_t now_ = 0, simulated_ = 0;
    uint64_t low_until_ = 0, cut_until_ = 0, heard_at_ = 0;
};
