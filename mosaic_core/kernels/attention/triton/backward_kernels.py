"""Gradients of gated attention over joint lists: every pair of blocks is met once.

With gates g, the weight of a key in a row is p = g_local exp2(s - lse_local) if it is local,
g_selected exp2(s - lse_selected) if it is selected, and the sum of the two if it is both. With
dP = dout . v, a branch gives dS = p (dP - d) where d = o_branch . dout (Dao et al. 2022). The sum
of two branches has the same form: p = exp2(s - shift) and dS = p (dP - mean), with
2^-shift = g_local 2^-lse_local + g_selected 2^-lse_selected and `mean` the average of the two d so
weighted. Hence a shift and a mean for each row and kind of key is all that the loops need to know.

Keys and values are written by key block, over inverted lists whose pieces are summed in a fixed
order: two runs give the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _packed(shift, mean):
    """Two float32 in 64 bits, since copies of 4 bytes are slow."""
    high = mean.to(tl.int32, bitcast=True).to(tl.int64) << 32
    return high | (shift.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF)


@triton.jit
def _unpacked(pair):
    shift = (pair & 0xFFFFFFFF).to(tl.uint32).to(tl.float32, bitcast=True)
    return shift, (pair >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def prepare_kernel(
    dout_ptr, o_local_ptr, o_selected_ptr, compressed_ptr, logits_ptr,
    lse_local_ptr, lse_selected_ptr,
    dlogits_ptr, dcompressed_ptr, rows_ptr,
    tokens, blocks, heads, kind_stride,
    g_b, g_s, g_h,
    BLOCK: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Of one query block and head: gradients of gates and compressed branch; shifts and means."""
    program = tl.program_id(0).to(tl.int64)
    head = program % heads
    block = program // heads % blocks
    batch = program // heads // blocks
    row = tl.arange(0, ROWS)
    live = row < BLOCK
    token = block * BLOCK + row
    near = (batch * tokens + token) * heads + head
    column = tl.arange(0, WIDTH)
    at, inside = near[:, None] * WIDTH + column[None, :], live[:, None]

    dout = tl.load(dout_ptr + at, mask=inside, other=0.0).to(tl.float32)
    o_local = tl.load(o_local_ptr + at, mask=inside, other=0.0).to(tl.float32)
    d_local = tl.sum(dout * o_local, 1)
    o_selected = tl.load(o_selected_ptr + at, mask=inside, other=0.0).to(tl.float32)
    d_selected = tl.sum(dout * o_selected, 1)
    compressed = tl.load(compressed_ptr + program * WIDTH + column).to(tl.float32)
    d_compressed = tl.sum(dout * compressed[None, :], 1)

    # log2 of the gates is finite where a gate is not above 0.
    gate_at = logits_ptr + batch * g_b + token * g_s + head * g_h
    local = tl.load(gate_at, mask=live, other=0.0).to(tl.float32) * LOG2_E
    middle = tl.load(gate_at + 1, mask=live, other=0.0).to(tl.float32) * LOG2_E
    selected = tl.load(gate_at + 2, mask=live, other=0.0).to(tl.float32) * LOG2_E
    top = tl.maximum(tl.maximum(local, middle), selected)
    top += tl.log2(tl.exp2(local - top) + tl.exp2(middle - top) + tl.exp2(selected - top))
    local, middle, selected = local - top, middle - top, selected - top
    d = tl.exp2(local) * d_local + tl.exp2(middle) * d_compressed
    d += tl.exp2(selected) * d_selected
    dtype = dlogits_ptr.dtype.element_ty
    dlogits_at = dlogits_ptr + near * 3
    tl.store(dlogits_at, (tl.exp2(local) * (d_local - d)).to(dtype), mask=live)
    tl.store(dlogits_at + 1, (tl.exp2(middle) * (d_compressed - d)).to(dtype), mask=live)
    tl.store(dlogits_at + 2, (tl.exp2(selected) * (d_selected - d)).to(dtype), mask=live)
    dcompressed = tl.sum(dout * tl.exp2(middle)[:, None], 0)
    dcompressed = dcompressed.to(dcompressed_ptr.dtype.element_ty)
    tl.store(dcompressed_ptr + program * WIDTH + column, dcompressed)

    # A branch of nothing weighs nothing.
    lse = tl.load(lse_local_ptr + near, mask=live, other=0.0)
    local = tl.where(lse == float("-inf"), float("inf"), lse - local)
    lse = tl.load(lse_selected_ptr + near, mask=live, other=0.0)
    selected = tl.where(lse == float("-inf"), float("inf"), lse - selected)
    least = tl.minimum(local, selected)
    of_local, of_selected = tl.exp2(least - local), tl.exp2(least - selected)
    both = of_local + of_selected
    d_both = (of_local * d_local + of_selected * d_selected) / both
    out = rows_ptr + (batch * heads + head) * tokens + token
    tl.store(out, _packed(local, d_local), mask=live)
    out += kind_stride
    tl.store(out, _packed(least - tl.log2(both), d_both), mask=live)
    out += kind_stride
    tl.store(out, _packed(selected, d_selected), mask=live)


@triton.jit
def query_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, rows_ptr, list_ptr, ends_ptr, dq_ptr,
    scale, scale_log2,
    tokens, listed, heads, kv_heads, kind_stride,
    q_b, q_s, q_h, k_b, k_s, k_h, v_b, v_s, v_h,
    GROUP: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """dQ of a tile of rows (token, head of the group), over the list of its query block."""
    PARTS: tl.constexpr = (BLOCK + TILE_N - 1) // TILE_N
    PRECISION: tl.constexpr = "ieee" if EXACT else "tf32"
    block, kv_head = tl.program_id(1), tl.program_id(2) % kv_heads
    batch = (tl.program_id(2) // kv_heads).to(tl.int64)
    q_s, k_s, v_s = q_s * 8, k_s * 8, v_s * 8
    row = tl.program_id(0) * TILE_M + tl.arange(0, TILE_M)
    live = row < GROUP * BLOCK
    token = (block * BLOCK + row % BLOCK).to(tl.int64)
    head = kv_head * GROUP + row // BLOCK
    column = tl.arange(0, WIDTH)[None, :]
    inside = live[:, None]
    q_at = q_ptr + batch * q_b + token[:, None] * q_s + head[:, None] * q_h + column
    q = tl.load(q_at, mask=inside, other=0.0)
    at = ((batch * tokens + token) * heads + head)[:, None] * WIDTH + column
    dout = tl.load(dout_ptr + at, mask=inside, other=0.0)
    rows_ptr += (batch * heads + head) * tokens + token
    shift_local, mean_local = _unpacked(tl.load(rows_ptr, mask=live, other=0))
    rows_ptr += kind_stride
    shift_both, mean_both = _unpacked(tl.load(rows_ptr, mask=live, other=0))
    rows_ptr += kind_stride
    shift_selected, mean_selected = _unpacked(tl.load(rows_ptr, mask=live, other=0))

    lists = (batch * tl.num_programs(1) + block) * kv_heads + kv_head
    list_at, ends_at = list_ptr + lists * listed, ends_ptr + lists * 3
    local_end, both_end = tl.load(ends_at) * PARTS, tl.load(ends_at + 1) * PARTS
    end = tl.load(ends_at + 2) * PARTS
    n = tl.arange(0, TILE_N)
    k_at = k_ptr + batch * k_b + kv_head * k_h + n[:, None] * k_s + column
    v_at = v_ptr + batch * v_b + kv_head * v_h + n[:, None] * v_s + column
    dq = tl.zeros((TILE_M, WIDTH), tl.float32)
    following = tl.load(list_at, mask=end > 0, other=0)
    for i in range(0, end):
        part = i % PARTS * TILE_N
        key = following.to(tl.int64) * BLOCK + part
        following = tl.load(list_at + (i + 1) // PARTS, mask=i + 1 < end, other=0)
        if BLOCK % TILE_N == 0:
            k = tl.load(k_at + key * k_s)
            v = tl.load(v_at + key * v_s)
        else:
            there = (part + n < BLOCK)[:, None]
            k = tl.load(k_at + key * k_s, mask=there, other=0.0)
            v = tl.load(v_at + key * v_s, mask=there, other=0.0)
        shift = tl.where(i < local_end, shift_local, shift_both)
        shift = tl.where(i < both_end, shift, shift_selected)
        mean = tl.where(i < local_end, mean_local, mean_both)
        mean = tl.where(i < both_end, mean, mean_selected)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if BLOCK % TILE_N != 0:
            scores = tl.where((part + n < BLOCK)[None, :], scores, float("-inf"))
        weights = tl.exp2(scores * scale_log2 - shift[:, None])
        dweights = tl.dot(dout, tl.trans(v), input_precision=PRECISION)
        dscores = weights * (dweights - mean[:, None])
        dq = tl.dot(dscores.to(k.dtype), k, dq, input_precision=PRECISION)
    tl.store(dq_ptr + at, (dq * scale).to(dq_ptr.dtype.element_ty), mask=inside)


@triton.jit
def key_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, rows_ptr, queries_ptr, kinds_ptr, pieces_ptr, partial_ptr,
    scale_log2,
    tokens, key_blocks, heads, kv_heads, kind_stride,
    q_b, q_s, q_h, k_b, k_s, k_h, v_b, v_s, v_h,
    GROUP: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
    TILE_M: tl.constexpr, TILE_N: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """dK (unscaled) and dV of a tile of keys, summed over one piece of its inverted list."""
    PARTS: tl.constexpr = (BLOCK + TILE_M - 1) // TILE_M
    TILES: tl.constexpr = GROUP * PARTS
    PRECISION: tl.constexpr = "ieee" if EXACT else "tf32"
    SPLIT: tl.constexpr = (BLOCK + TILE_N - 1) // TILE_N
    piece = (tl.program_id(0) // SPLIT).to(tl.int64)
    key_column = tl.load(pieces_ptr + piece * 3).to(tl.int64)
    if key_column < 0:
        return
    start, end = tl.load(pieces_ptr + piece * 3 + 1), tl.load(pieces_ptr + piece * 3 + 2)
    kv_head = key_column // key_blocks % kv_heads
    batch = key_column // key_blocks // kv_heads
    q_s, k_s, v_s = q_s * 8, k_s * 8, v_s * 8
    column = tl.arange(0, WIDTH)[None, :]
    n = tl.program_id(0) % SPLIT * TILE_N + tl.arange(0, TILE_N)
    there = (n < BLOCK)[:, None]
    key = (key_column % key_blocks * BLOCK + n)[:, None]
    k = tl.load(k_ptr + batch * k_b + key * k_s + kv_head * k_h + column, mask=there, other=0.0)
    v = tl.load(v_ptr + batch * v_b + key * v_s + kv_head * v_h + column, mask=there, other=0.0)
    dk = tl.zeros((TILE_N, WIDTH), tl.float32)
    dv = tl.zeros((TILE_N, WIDTH), tl.float32)
    m = tl.arange(0, TILE_M)
    q_at = q_ptr + batch * q_b + m[:, None] * q_s + column
    dout_at = dout_ptr + (batch * tokens + m[:, None]) * heads * WIDTH + column
    for i in range(start * TILES, end * TILES):
        part = i % PARTS * TILE_M
        head = kv_head * GROUP + i % TILES // PARTS
        token = tl.load(queries_ptr + i // TILES).to(tl.int64) * BLOCK + part
        rows = rows_ptr + tl.load(kinds_ptr + i // TILES).to(tl.int64) * kind_stride
        rows += (batch * heads + head) * tokens + token + m
        q_tile = q_at + token * q_s + head * q_h
        dout_tile = dout_at + (token * heads + head) * WIDTH
        if BLOCK % TILE_M == 0:
            q, dout, pair = tl.load(q_tile), tl.load(dout_tile), tl.load(rows)
        else:
            live = part + m < BLOCK
            pair = tl.load(rows, mask=live, other=0)
            q = tl.load(q_tile, mask=live[:, None], other=0.0)
            dout = tl.load(dout_tile, mask=live[:, None], other=0.0)
        shift, mean = _unpacked(pair)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION)
        weights = tl.exp2(scores * scale_log2 - shift[None, :])
        dv = tl.dot(weights.to(dout.dtype), dout, dv, input_precision=PRECISION)
        dweights = tl.dot(v, tl.trans(dout), input_precision=PRECISION)
        dscores = weights * (dweights - mean[None, :])
        dk = tl.dot(dscores.to(q.dtype), q, dk, input_precision=PRECISION)
    partial_at = partial_ptr + (piece * 2 * BLOCK + n[:, None]) * WIDTH + column
    tl.store(partial_at, dk, mask=there)
    tl.store(partial_at + BLOCK * WIDTH, dv, mask=there)


@triton.jit
def sum_kernel(
    partial_ptr, piece_offsets_ptr, dk_ptr, dv_ptr,
    scale,
    key_blocks, kv_heads,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr, TILE_N: tl.constexpr,
):  # fmt: skip
    """The pieces of a key block, in order."""
    SPLIT: tl.constexpr = (BLOCK + TILE_N - 1) // TILE_N
    key_column = (tl.program_id(0) // SPLIT).to(tl.int64)
    first = tl.load(piece_offsets_ptr + key_column).to(tl.int64)
    last = tl.load(piece_offsets_ptr + key_column + 1).to(tl.int64)
    n = (tl.program_id(0) % SPLIT * TILE_N + tl.arange(0, TILE_N))[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    there = n < BLOCK
    at = partial_ptr + n * WIDTH + column
    dk = tl.zeros((TILE_N, WIDTH), tl.float32)
    dv = tl.zeros((TILE_N, WIDTH), tl.float32)
    at += first * (2 * BLOCK * WIDTH)
    for _ in range(first, last):
        dk += tl.load(at, mask=there, other=0.0)
        dv += tl.load(at + BLOCK * WIDTH, mask=there, other=0.0)
        at += 2 * BLOCK * WIDTH
    kv_head = key_column // key_blocks % kv_heads
    batch = key_column // key_blocks // kv_heads
    token = (batch * key_blocks + key_column % key_blocks) * BLOCK + n
    out = (token * kv_heads + kv_head) * WIDTH + column
    tl.store(dk_ptr + out, (dk * scale).to(dk_ptr.dtype.element_ty), mask=there)
    tl.store(dv_ptr + out, dv.to(dv_ptr.dtype.element_ty), mask=there)
