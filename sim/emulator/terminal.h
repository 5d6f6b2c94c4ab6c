// A pseudo-terminal whose other end a host opens as its serial port.
#pragma once

#include <string>

class Terminal {
public:
    explicit Terminal(unsigned baud);
    ~Terminal();
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    // Path of the host's end.
    const std::string& name() const { return name_; }
    int descriptor() const { return master_; }
    // Whether a host has it open.
    bool open() const;
    // Bits a second and stop bits that the host has set.
    double baud() const;
    int stop_bits() const;
    // What can be read or written now, without waiting.
    std::string read(std::size_t most);
    std::size_t write(const std::string& bytes);

private:
    int master_;
    std::string name_;
};
