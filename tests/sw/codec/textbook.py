"""Independent reference implementations in plain Python: slow, and short enough to be seen to be right."""

import heapq
import itertools


def huffman_bits(freqs):
    """Total bits of an optimal prefix code without a length limit: the sum of all inner nodes of Huffman's tree."""
    heap = [int(f) for f in freqs if f]
    if len(heap) == 1:
        return heap[0]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        node = heapq.heappop(heap) + heapq.heappop(heap)
        total += node
        heapq.heappush(heap, node)
    return total


def brute_force_bits(freqs, max_len):
    """Total bits of the best prefix code with a length limit: all combinations of lengths that satisfy Kraft."""
    used = sorted((int(f) for f in freqs if f), reverse=True)
    best = None
    for lengths in itertools.combinations_with_replacement(range(1, max_len + 1), len(used)):
        if sum(2 ** (max_len - length) for length in lengths) <= 2 ** max_len:
            total = sum(f * length for f, length in zip(used, lengths, strict=True))
            best = total if best is None else min(best, total)
    return best


def canonical_codewords(counts):
    """Codewords as text, in symbol order, by the rule ``first[l + 1] = (first[l] + count[l]) << 1``."""
    codewords, first = [], 0
    for length, count in enumerate(counts, start=1):
        codewords += [format(first + i, f"0{length}b") for i in range(count)]
        first = (first + count) << 1
    return codewords


def bits_of(words):
    """The bits of 16-bit words as text, bit 15 first."""
    return "".join(format(int(word), "016b") for word in words)


def interleave(symbols, codewords, contexts):
    """The words of a stream, by playing the decoder: who takes a word, and when."""
    texts = ["".join(codewords[s] for s in symbols[n::contexts]) for n in range(contexts)]
    own = [[text[at:at + 16].ljust(16, "0") for at in range(0, len(text), 16)] for text in texts]
    taken, offset, order = [0] * contexts, [0] * contexts, []

    def take(context):
        number = taken[context]
        taken[context] += 1
        order.append(own[context][number] if number < len(own[context]) else None)

    for context in range(contexts):
        take(context)
        take(context)
    for k, symbol in enumerate(symbols):
        context = k % contexts
        offset[context] += len(codewords[symbol])
        if offset[context] >= 16:
            offset[context] -= 16
            take(context)
    while order and order[-1] is None:
        order.pop()
    return [int(word or "0", 2) for word in order]


def tree_of(codewords):
    """Nested dictionaries keyed by '0' and '1'; a leaf is a symbol."""
    root = {}
    for symbol, codeword in enumerate(codewords):
        node = root
        for bit in codeword[:-1]:
            node = node.setdefault(bit, {})
        assert codeword[-1] not in node
        node[codeword[-1]] = symbol
    return root


def decode(words, codewords, count):
    """Walk the tree bit by bit. Returns the symbols; ends at the end of the words, or at ``("bad", position)``."""
    root = tree_of(codewords)
    node, symbols, begin = root, [], 0
    for position, bit in enumerate(bits_of(words)):
        if count is not None and len(symbols) == count:
            return symbols
        if bit not in node:
            return "bad", begin
        node = node[bit]
        if not isinstance(node, dict):
            symbols.append(node)
            node, begin = root, position + 1
    return symbols


def walk(entries, symbols, taps, limit):
    """Run a layer's dictionary entries with a tap pointer.

    Returns for each row a dictionary tap -> list of (neg, shift), and the number of micro-operations. The pointer rule
    is checked between each two operations of a row.
    """
    rows, cycles = [], []
    position, post, row, steps = 0, 0, {}, 0
    for symbol in symbols:
        entry = entries[symbol]
        assert [op.last for op in entry] == [False] * (len(entry) - 1) + [True]
        for op in entry:
            steps += 1
            assert post + op.pre <= limit, "the pointer moves too far between two operations"
            position += op.pre
            if op.kind.name in ("ADD", "SUB"):
                assert position < taps, "a term outside the kernel"
                row.setdefault(position, []).append((op.kind.name == "SUB", op.shift))
            position += op.post
            post = op.post
            if op.kind.name == "EOR":
                assert len(entry) == 1 and op.pre == op.post == 0
                rows.append(row)
                cycles.append(steps)
                position, post, row, steps = 0, 0, {}, 0
    assert not steps, "the last row is not closed"
    return rows, cycles
