#include "line.h"

#include <algorithm>

void Sender::queue(uint8_t byte, Timing timing) {
    queue_.push_back({byte, timing});
    queued_cycles_ += cycles(queue_.back());
}

double Sender::pending(uint64_t now) const {
    const double current = idle_ ? 0 : edge_ + left_ * bit_ - static_cast<double>(now);
    return std::max(0.0, current) + std::max(0.0, queued_cycles_);
}

bool Sender::level(uint64_t now) {
    while (idle_ || static_cast<double>(now) >= edge_) {
        if (left_) {
            level_ = pattern_ & 1;
            pattern_ >>= 1;
            --left_;
            edge_ += bit_;
        } else if (!begin(now)) {
            idle_ = level_ = true;
            break;
        }
    }
    return level_;
}

bool Sender::begin(uint64_t now) {
    if (queue_.empty()) return false;
    const Item item = queue_.front();
    if (idle_) edge_ = static_cast<double>(now);
    idle_ = false;
    bit_ = item.timing.bit;
    left_ = 9 + item.timing.stop_bits;
    uint32_t data = item.byte;
    bool taken = true;
    if (!doubled_ && dice_.roll(faults_.insert)) {
        data = dice_.byte();
        taken = false;
    } else if (!doubled_ && dice_.roll(faults_.duplicate)) {
        doubled_ = true;
        taken = false;
    } else {
        doubled_ = false;
    }
    pattern_ = taken && dice_.roll(faults_.drop) ? ~0u : ~0u << 9 | data << 1;
    for (int n = 0; n < left_; ++n) pattern_ ^= static_cast<uint32_t>(dice_.roll(faults_.flip)) << n;
    if (taken) {
        queue_.pop_front();
        queued_cycles_ = queue_.empty() ? 0 : queued_cycles_ - cycles(item);
        ++sent_;
    }
    return true;
}

void Receiver::sample(uint64_t now, bool level) {
    if (state_ == State::kIdle) {
        if (level) return;
        state_ = State::kByte;
        byte_bit_ = bit_;
        // The edge was some time within the last cycle.
        next_ = static_cast<double>(now) - 0.5 + byte_bit_ / 2;
        count_ = 0;
        shift_ = 0;
    } else if (state_ == State::kLow) {
        if (level) state_ = State::kIdle;
        return;
    }
    if (static_cast<double>(now) < next_) return;
    next_ += byte_bit_;
    const bool value = level != dice_.roll(faults_.flip);
    if (count_ == 0) {
        if (value) state_ = State::kIdle;
    } else if (count_ <= 8) {
        shift_ |= static_cast<uint32_t>(value) << (count_ - 1);
    } else {
        // A byte without a stop bit is delivered all the same, as serial adapters do.
        deliver(static_cast<uint8_t>(shift_));
        state_ = level ? State::kIdle : State::kLow;
    }
    ++count_;
}

void Receiver::deliver(uint8_t byte) {
    if (dice_.roll(faults_.insert)) received_.push_back(static_cast<char>(dice_.byte()));
    if (dice_.roll(faults_.drop)) return;
    received_.push_back(static_cast<char>(byte));
    if (dice_.roll(faults_.duplicate)) received_.push_back(static_cast<char>(byte));
}

std::string Receiver::take(std::size_t most) {
    std::string part = received_.substr(0, most);
    received_.erase(0, part.size());
    return part;
}
