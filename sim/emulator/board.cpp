#include "board.h"

#include <cstring>

#include "Vtop.h"
#include "Vtop__Syms.h"
#include "verilated.h"

namespace {
constexpr int kResetCycles = 16;
constexpr uint64_t kFirstLimit = 16;
constexpr std::size_t kBlock = 1024;
}  // namespace

Board::Board(int seed) : context_(new VerilatedContext) {
    context_->randReset(2);  // what the design does not reset holds random bits
    context_->randSeed(seed);
    top_.reset(new Vtop(context_.get()));
    reset();
}

Board::~Board() { top_->final(); }

void Board::reset() {
    top_->rst = 1;
    for (int n = 0; n < kResetCycles; ++n) cycle(true);
    top_->rst = 0;
}

void Board::cycle(bool rx) {
    top_->rx = rx;
    top_->clk = 1;
    top_->eval();
    top_->clk = 0;
    top_->eval();
}

bool Board::tx() const { return top_->tx; }
bool Board::busy() const { return top_->busy; }

const char* Board::state() const { return reinterpret_cast<const char*>(top_->rootp->vlSymsp); }
std::size_t Board::state_size() const { return sizeof(Vtop__Syms); }

Rest::Rest(const Board& board) : board_(board), snapshot_(board.state_size()) {}

void Rest::look() {
    if (period_) return;
    if (length_ < limit_) {
        ++length_;
        if (same()) {
            period_ = length_;
            return;
        }
        if (length_ < limit_) return;
    }
    limit_ = limit_ ? 2 * limit_ : kFirstLimit;
    length_ = 0;
    std::memcpy(snapshot_.data(), board_.state(), snapshot_.size());
}

bool Rest::same() {
    // Where it differed last it will most likely differ again: that makes a look cheap.
    const char* now = board_.state();
    if (now[differed_] != snapshot_[differed_]) return false;
    for (std::size_t at = 0; at < snapshot_.size(); at += kBlock) {
        const std::size_t size = at + kBlock < snapshot_.size() ? kBlock : snapshot_.size() - at;
        if (!std::memcmp(now + at, snapshot_.data() + at, size)) continue;
        differed_ = at;
        while (now[differed_] == snapshot_[differed_]) ++differed_;
        return false;
    }
    return true;
}
