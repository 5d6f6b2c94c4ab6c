#include "terminal.h"

// The kernel's own termios2 has any speed as a number. Its header and <termios.h> exclude each other.
#include <asm/termbits.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <stdexcept>

namespace {
termios2 settings(int descriptor) {
    termios2 found{};
    ioctl(descriptor, TCGETS2, &found);
    return found;
}
}  // namespace

Terminal::Terminal(unsigned baud) : master_(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)) {
    char name[128];
    if (master_ < 0 || grantpt(master_) || unlockpt(master_) || ptsname_r(master_, name, sizeof name))
        throw std::runtime_error("can't open a pseudo-terminal");
    name_ = name;
    // Until it has been open once, it does not tell that nobody has it open.
    const int host = ::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    termios2 raw = settings(master_);
    raw.c_iflag = raw.c_oflag = raw.c_lflag = 0;
    raw.c_cflag = CS8 | CREAD | CLOCAL | BOTHER | BOTHER << IBSHIFT;
    raw.c_ispeed = raw.c_ospeed = baud;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    const bool done = host >= 0 && !ioctl(host, TCSETS2, &raw);
    if (host >= 0) close(host);
    if (!done) throw std::runtime_error("can't set up a pseudo-terminal");
}

Terminal::~Terminal() { close(master_); }

bool Terminal::open() const {
    pollfd asked{master_, POLLIN, 0};
    return poll(&asked, 1, 0) >= 0 && !(asked.revents & POLLHUP);
}

double Terminal::baud() const { return settings(master_).c_ospeed; }
int Terminal::stop_bits() const { return settings(master_).c_cflag & CSTOPB ? 2 : 1; }

std::string Terminal::read(std::size_t most) {
    std::string bytes(most, '\0');
    const ssize_t count = ::read(master_, &bytes[0], most);
    bytes.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
    return bytes;
}

std::size_t Terminal::write(const std::string& bytes) {
    const ssize_t count = ::write(master_, bytes.data(), bytes.size());
    return count > 0 ? static_cast<std::size_t>(count) : 0;
}
