// A board in software, for a host to talk to over its serial line. Usage:
//
//     model pty CLOCK_HZ SEED BAUD FLIP DROP DUPLICATE INSERT
//         behind a pseudo-terminal, as fast as it goes. Prints its name, and at the end the clock cycles that passed,
//         those of them that were simulated, and the seconds that this took. SIGUSR1 resets the board.
//     model pins CLOCK_HZ SEED
//         in step with commands on standard input (see Pins), in the board's time.
//
// Both end with SIGINT, SIGTERM, or the end of standard input.

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <exception>
#include <string>

#include "link.h"
#include "terminal.h"

double sc_time_stamp() { return 0; }

namespace {

volatile sig_atomic_t ended = 0, resets = 0;

void end(int) { ended = 1; }
void ask_for_reset(int) { resets = 1; }

void listen_to_signals() {
    struct sigaction action {};
    action.sa_handler = end;  // without SA_RESTART: waiting must end, too
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    action.sa_handler = ask_for_reset;
    sigaction(SIGUSR1, &action, nullptr);
    signal(SIGPIPE, SIG_IGN);
}

// Free running behind a pseudo-terminal.
class Serial {
public:
    Serial(Link& link, unsigned baud) : link_(link), terminal_(baud) {}

    void run() {
        printf("%s\n", terminal_.name().c_str());
        fflush(stdout);
        while (!ended) {
            exchange();
            if (resets) {
                resets = 0;
                link_.reset();
            }
            if (link_.resting() && link_.nothing_received() && !link_.queued())
                sleep();
            else
                work();
        }
        printf("%llu %llu %.3f\n", static_cast<unsigned long long>(link_.now()),
               static_cast<unsigned long long>(link_.simulated()), seconds_);
    }

private:
    // Small enough to see a change of speed before the bytes that come after it, and to end soon.
    static constexpr uint64_t kSlice = 256;
    static constexpr std::size_t kMostQueued = 65536, kMostReceived = 4096;
    static constexpr int kLookForHost = 20, kLookForEnd = 500;  // ms

    void exchange() {
        const bool open = terminal_.open();
        link_.speed(terminal_.baud(), terminal_.stop_bits());
        if (link_.queued() < kMostQueued) link_.queue(terminal_.read(kMostQueued));
        if (!open) {
            link_.take(~std::size_t{0});  // as a port that nobody has open
            unwritten_.clear();
            return;
        }
        unwritten_ += link_.take(~std::size_t{0});
        if (!unwritten_.empty()) unwritten_.erase(0, terminal_.write(unwritten_));
        if (unwritten_.size() > kMostReceived) unwritten_.resize(kMostReceived);  // the host's buffer overruns
    }

    void work() {
        const auto started = std::chrono::steady_clock::now();
        link_.run(link_.now() + kSlice, true);
        seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
        if (++slices_ % 64 == 0) look_for_end(0);
    }

    void sleep() {
        if (!terminal_.open()) return look_for_end(kLookForHost);  // waiting for the terminal would not wait
        pollfd asked[2] = {{terminal_.descriptor(), static_cast<short>(POLLIN | (unwritten_.empty() ? 0 : POLLOUT)), 0},
                           {STDIN_FILENO, POLLIN, 0}};
        poll(asked, 2, kLookForEnd);
        if (asked[1].revents) look_for_end(0);
    }

    static void look_for_end(int milliseconds) {
        pollfd asked{STDIN_FILENO, POLLIN, 0};
        char ignored[64];
        if (poll(&asked, 1, milliseconds) > 0 && asked.revents && read(STDIN_FILENO, ignored, sizeof ignored) <= 0)
            ended = 1;
    }

    Link& link_;
    Terminal terminal_;
    std::string unwritten_;
    double seconds_ = 0;
    unsigned slices_ = 0;
};

// In lock step. A command is a letter and little-endian fields:
//
//     w  count u32, bytes          queue bytes to the board
//     s  baud f64                  the host's speed
//     r  seconds f64, most u32     go on until bytes have come or the time has passed; answers with them
//     f  flip, drop, duplicate, insert f64 to the board, the same to the host; seed u64
//     e  sent u64, trouble u8, seconds f64     when so many bytes have been sent
//     c                            nothing goes wrong any more
//     x                            reset the board
//     k                            forget the bytes that are queued
//     q                            only answer
//
// Each is answered by: now f64, pending f64 (seconds); cycles, simulated, sent u64; busy u8; count u32, bytes.
class Pins {
public:
    explicit Pins(Link& link) : link_(link) {}

    int run() {
        char command;
        while (!ended && get(&command, 1)) {
            std::string bytes;
            if (!obey(command, bytes)) return ended || input_ended_ ? 0 : 2;
            answer(bytes);
        }
        return 0;
    }

private:
    static constexpr double kMostSeconds = 1e6;

    bool obey(char command, std::string& bytes) {
        switch (command) {
            case 'w': {
                uint32_t count;
                if (!get(&count, sizeof count)) return false;
                std::string queued(count, '\0');
                if (!get(&queued[0], count)) return false;
                link_.queue(queued);
                return true;
            }
            case 's': {
                double baud;
                if (!get(&baud, sizeof baud)) return false;
                link_.speed(baud);
                return true;
            }
            case 'r': {
                double seconds;
                uint32_t most;
                if (!get(&seconds, sizeof seconds) || !get(&most, sizeof most)) return false;
                seconds = seconds > 0 ? seconds < kMostSeconds ? seconds : kMostSeconds : 0;
                link_.run(link_.now() + static_cast<uint64_t>(std::ceil(seconds * link_.clock_hz())), true);
                bytes = link_.take(most);
                return true;
            }
            case 'f': {
                Faults to_board, to_host;
                uint64_t seed;
                if (!get(&to_board, sizeof to_board) || !get(&to_host, sizeof to_host) || !get(&seed, sizeof seed))
                    return false;
                link_.faults(to_board, to_host, seed);
                return true;
            }
            case 'e': {
                Event event{};
                if (!get(&event.bytes, sizeof event.bytes) || !get(&event.trouble, sizeof event.trouble) ||
                    !get(&event.cycles, sizeof event.cycles))
                    return false;
                event.cycles *= link_.clock_hz();
                link_.trouble(event);
                return true;
            }
            case 'c': link_.calm(); return true;
            case 'x': link_.reset(); return true;
            case 'k': link_.forget(); return true;
            case 'q': return true;
            default: fprintf(stderr, "unknown command %d\n", command); return false;
        }
    }

    void answer(const std::string& bytes) {
        std::string text;
        const auto put = [&text](const auto& value) {
            text.append(reinterpret_cast<const char*>(&value), sizeof value);
        };
        put(static_cast<double>(link_.now()) / link_.clock_hz());
        put(link_.pending() / link_.clock_hz());
        put(link_.now());
        put(link_.simulated());
        put(link_.sent());
        put(static_cast<uint8_t>(link_.busy()));
        put(static_cast<uint32_t>(bytes.size()));
        text += bytes;
        fwrite(text.data(), 1, text.size(), stdout);
        fflush(stdout);
    }

    bool get(void* to, std::size_t size) {
        input_ended_ = fread(to, 1, size, stdin) != size;
        return !input_ended_;
    }

    Link& link_;
    bool input_ended_ = false;
};

}  // namespace

int main(int argc, char** argv) try {
    const std::string face = argc > 1 ? argv[1] : "";
    if (!((face == "pty" && argc == 9) || (face == "pins" && argc == 4))) {
        fprintf(stderr, "usage: %s pty CLOCK_HZ SEED BAUD FLIP DROP DUPLICATE INSERT | pins CLOCK_HZ SEED\n", argv[0]);
        return 2;
    }
    listen_to_signals();
    Link link(atoi(argv[3]), atof(argv[2]));
    if (face == "pins") return Pins(link).run();
    const Faults faults{atof(argv[5]), atof(argv[6]), atof(argv[7]), atof(argv[8])};
    link.faults(faults, faults, static_cast<uint64_t>(atoi(argv[3])));
    Serial(link, static_cast<unsigned>(atoi(argv[4]))).run();
    return 0;
} catch (const std::exception& error) {
    fprintf(stderr, "%s: %s\n", error.what(), strerror(errno));
    return 1;
}
