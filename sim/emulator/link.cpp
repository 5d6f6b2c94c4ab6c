#include "link.h"

#include <algorithm>

Link::Link(int seed, double clock_hz)
    : clock_hz_(clock_hz), board_(seed), rest_(board_), dice_(static_cast<uint64_t>(seed)),
      sender_(to_board_, dice_), receiver_(to_host_, dice_) {
    speed(115200);
}

void Link::speed(double baud, int stop_bits) {
    // Slower or faster than anything is useless, but must not stop time.
    timing_.bit = std::min(std::max(clock_hz_ / std::max(baud, 1.0), 1.0), 1e9);
    timing_.stop_bits = stop_bits;
    receiver_.speed(timing_.bit);
}

void Link::queue(const std::string& bytes) {
    for (const char byte : bytes) sender_.queue(static_cast<uint8_t>(byte), timing_);
}

void Link::trouble(const Event& event) {
    events_.push_back(event);
    happen();
}

void Link::faults(const Faults& to_board, const Faults& to_host, uint64_t seed) {
    to_board_ = to_board;
    to_host_ = to_host;
    dice_ = Dice(seed);
}

void Link::calm() {
    to_board_ = to_host_ = Faults();
    events_.clear();
    low_until_ = cut_until_ = now_;
}

void Link::reset() {
    board_.reset();
    rest_.disturb();
}

void Link::happen() {
    for (std::size_t at = 0; at < events_.size();) {
        const Event event = events_[at];
        if (event.bytes > sender_.sent()) {
            ++at;
            continue;
        }
        events_.erase(events_.begin() + static_cast<std::ptrdiff_t>(at));
        const uint64_t end = event.cycles < 1e18 ? now_ + static_cast<uint64_t>(event.cycles) : kEver;
        if (event.trouble == Trouble::kReset) reset();
        if (event.trouble == Trouble::kLow) low_until_ = end;
        if (event.trouble == Trouble::kCut) cut_until_ = end;
    }
}

bool Link::quiet() const {
    return sender_.idle() && receiver_.idle() && board_.tx() && !board_.busy() && now_ >= low_until_;
}

void Link::step() {
    const uint64_t sent = sender_.sent();
    bool level = sender_.level(now_);
    if (sender_.sent() != sent && !events_.empty()) happen();
    const bool cut = now_ < cut_until_;
    if (cut) level = true;
    if (now_ < low_until_) level = false;
    board_.cycle(level);
    receiver_.sample(now_, cut || board_.tx());
    if (!receiver_.idle()) heard_at_ = now_;
    ++now_;
    ++simulated_;
}

bool Link::told() const {
    const std::size_t count = receiver_.received();
    return count >= kGathered || (count && static_cast<double>(now_ - heard_at_) > kPauseBits * timing_.bit);
}

void Link::run(uint64_t until, bool until_byte) {
    while (now_ < until && !(until_byte && told())) {
        if (!quiet()) {
            rest_.disturb();
            step();
            continue;
        }
        const uint64_t period = rest_.period(), left = until - now_;
        const bool telling = until_byte && receiver_.received();  // the pause behind the last byte is short
        if (period && left >= period && !telling) {
            now_ += left - left % period;
        } else {
            step();
            rest_.look();
        }
    }
}
