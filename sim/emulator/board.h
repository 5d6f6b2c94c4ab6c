// The compiled board: a clock, two wires, and a way to pass time without simulating it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

class VerilatedContext;
class Vtop;

class Board {
public:
    explicit Board(int seed);
    ~Board();

    void reset();
    void cycle(bool rx);
    bool tx() const;
    bool busy() const;

    // Everything that the board remembers, in one piece.
    const char* state() const;
    std::size_t state_size() const;

private:
    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vtop> top_;
};

// Finds out that a board whose inputs stay the same repeats itself: Brent's cycle detection on its whole state. Then
// whole periods may be left out, whatever the design is, and nothing differs from a simulation of them.
class Rest {
public:
    explicit Rest(const Board& board);
    void disturb() { period_ = 0; length_ = 0; limit_ = 0; }
    void look();
    // Clock cycles after which the state is the same again; 0 when that is not known.
    uint64_t period() const { return period_; }

private:
    bool same();

    const Board& board_;
    std::vector<char> snapshot_;
    std::size_t differed_ = 0;
    uint64_t length_ = 0, limit_ = 0, period_ = 0;
};
