// The cells of generic.v for Lattice ECP5.

// One LUT4 a bit: a carry cell's LUT propagates A ^ (B ? D : C), and generates what it gives for C = D = 0, which is A.
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
  localparam PAIRS = (WIDTH + 1) / 2;
  localparam [15:0] INIT = 16'h569a;
  wire [2*PAIRS-1:0] a = acc, c = low, d = high, s;
  wire [PAIRS:0] chain;
  assign chain[0] = carry;
  assign sum = s[WIDTH-1:0];
  genvar n;
  generate
    for (n = 0; n < PAIRS; n = n + 1) begin : pair
      CCU2C #(
          .INIT0(INIT), .INIT1(INIT), .INJECT1_0("NO"), .INJECT1_1("NO")
      ) cell_i (
          .CIN(chain[n]), .A0(a[2*n]), .B0(sel), .C0(c[2*n]), .D0(d[2*n]), .A1(a[2*n+1]), .B1(sel), .C1(c[2*n+1]),
          .D1(d[2*n+1]), .S0(s[2*n]), .S1(s[2*n+1]), .COUT(chain[n+1])
      );
    end
  endgenerate
endmodule

// Likewise A ^ (C & (B ^ D)).
module SHIFTWRIGHT_GATED_ADD #(
    parameter WIDTH = 1
) (
    input [WIDTH-1:0] acc,
    input [WIDTH-1:0] addend,
    input enable,
    input invert,
    output [WIDTH-1:0] sum
);
  localparam PAIRS = (WIDTH + 1) / 2;
  localparam [15:0] INIT = 16'h9a6a;
  wire [2*PAIRS-1:0] a = acc, b = addend, s;
  wire [PAIRS:0] chain;
  assign chain[0] = 1'b0;
  assign sum = s[WIDTH-1:0];
  genvar n;
  generate
    for (n = 0; n < PAIRS; n = n + 1) begin : pair
      CCU2C #(
          .INIT0(INIT), .INIT1(INIT), .INJECT1_0("NO"), .INJECT1_1("NO")
      ) cell_i (
          .CIN(chain[n]), .A0(a[2*n]), .B0(b[2*n]), .C0(enable), .D0(invert), .A1(a[2*n+1]), .B1(b[2*n+1]),
          .C1(enable), .D1(invert), .S0(s[2*n]), .S1(s[2*n+1]), .COUT(chain[n+1])
      );
    end
  endgenerate
endmodule

// Two words a LUT4, which has an input left for the inversion; PFUMX and L6MUX21 choose among LUTs.
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
  genvar i, j;
  generate
    for (i = 0; i < WIDTH; i = i + 1) begin : position
      wire [WORDS-1:0] tree;  // [k]: root of a heap is 1; its leaves, WORDS / 2 to WORDS - 1, are LUTs
      for (j = WORDS / 2; j < WORDS; j = j + 1) begin : leaf
        LUT4 #(.INIT(16'h56a6)) lut (
            .A(invert), .B(words[(2*j-WORDS)*WIDTH+i]), .C(sel[0]), .D(words[(2*j-WORDS+1)*WIDTH+i]), .Z(tree[j])
        );
      end
      for (j = WORDS / 4; j < WORDS / 2; j = j + 1) begin : pair
        PFUMX mux (.BLUT(tree[2*j]), .ALUT(tree[2*j+1]), .C0(sel[1]), .Z(tree[j]));
      end
      for (j = 1; j < WORDS / 4; j = j + 1) begin : quad
        L6MUX21 mux (.D0(tree[2*j]), .D1(tree[2*j+1]), .SD(sel[j < 2 ? BITS-1 : 2]), .Z(tree[j]));
      end
      assign out[i] = tree[1];
    end
  endgenerate
endmodule
