// Cells with a form of their own in some FPGA family, in plain Verilog.

// sum = acc + (sel ? high : low) + carry
module SHIFTWRIGHT_SHIFT_ADD #(
    parameter WIDTH = 1
) (
    input [WIDTH-1:0] acc,
    input [WIDTH-1:0] low,
    input [WIDTH-1:0] high,
    input sel,
    input carry,
    output [WIDTH-1:0] sum
);
  assign sum = acc + (sel ? high : low) + {{WIDTH{1'b0}}, carry};
endmodule

// sum = acc + (enable ? (invert ? ~addend : addend) : 0)
module SHIFTWRIGHT_GATED_ADD #(
    parameter WIDTH = 1
) (
    input [WIDTH-1:0] acc,
    input [WIDTH-1:0] addend,
    input enable,
    input invert,
    output [WIDTH-1:0] sum
);
  assign sum = acc + ((addend ^ {WIDTH{invert}}) & {WIDTH{enable}});
endmodule

// out = words[sel], inverted when invert is high; WORDS is 4, 8 or 16
module SHIFTWRIGHT_SELECT #(
    parameter WIDTH = 1,
    parameter WORDS = 4,
    parameter BITS = 2
) (
    input [WORDS*WIDTH-1:0] words,
    input [BITS-1:0] sel,
    input invert,
    output [WIDTH-1:0] out
);
  wire [4*WIDTH-1:0] four;
  generate
    if (WORDS == 4) begin : from_4
      assign four = words;
    end else if (WORDS == 8) begin : from_8
      assign four = sel[BITS-1] ? words[WORDS*WIDTH-1:WORDS*WIDTH/2] : words[WORDS*WIDTH/2-1:0];
    end else begin : from_16
      wire [WORDS*WIDTH/2-1:0] eight;
      assign eight = sel[BITS-1] ? words[WORDS*WIDTH-1:WORDS*WIDTH/2] : words[WORDS*WIDTH/2-1:0];
      assign four = sel[2] ? eight[WORDS*WIDTH/2-1:WORDS*WIDTH/4] : eight[WORDS*WIDTH/4-1:0];
    end
  endgenerate
  wire [2*WIDTH-1:0] two = sel[1] ? four[4*WIDTH-1:2*WIDTH] : four[2*WIDTH-1:0];
  assign out = (sel[0] ? two[2*WIDTH-1:WIDTH] : two[WIDTH-1:0]) ^ {WIDTH{invert}};
endmodule
