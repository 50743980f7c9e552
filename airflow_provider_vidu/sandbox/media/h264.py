"""A minimal H.264 encoder: constrained baseline, one slice per frame, I_PCM and P_Skip macroblocks only.

I_PCM stores raw samples and P_Skip repeats the previous frame, so no transforms, prediction or entropy tables are
needed; every decoder must support both (ITU-T H.264, 7.3.2 to 7.3.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from airflow_provider_vidu.sandbox.media.pictures import BLOCK, Picture

#: Bits of ``frame_num``; it counts reference frames since the last IDR, modulo 2 ** bits.
_FRAME_NUM_BITS = 8
_I_PCM_IN_I_SLICE = 25
_I_PCM_IN_P_SLICE = 30
_NAL_SPS, _NAL_PPS, _NAL_IDR, _NAL_SLICE = 7, 8, 5, 1
_EMULATION = re.compile(rb"\x00\x00(?=[\x00-\x03])")


class BitWriter:
    """Writes the bit fields of H.264 syntax, most significant bit first."""

    def __init__(self) -> None:
        self._done = bytearray()
        self._pending = 0
        self._count = 0

    def bits(self, value: int, width: int) -> None:
        """Append ``value`` as ``width`` bits (u in the standard)."""
        self._pending = (self._pending << width) | value
        self._count += width
        while self._count >= 8:
            self._count -= 8
            self._done.append(self._pending >> self._count)
            self._pending &= (1 << self._count) - 1

    def ue(self, value: int) -> None:
        """Append ``value`` (0 or more) as an unsigned Exp-Golomb code (ue in the standard)."""
        self.bits(value + 1, 2 * (value + 1).bit_length() - 1)

    def align(self) -> None:
        """Fill the current byte with zero bits."""
        if self._count:
            self.bits(0, 8 - self._count)

    def raw(self, data: bytes) -> None:
        """Append whole bytes; the writer must be aligned."""
        self._done += data

    def finish(self) -> bytes:
        """Append the stop bit, align, and return all bytes."""
        self.bits(1, 1)
        self.align()
        return bytes(self._done)


def nal(kind: int, payload: bytes) -> bytes:
    """Return a NAL unit of type ``kind`` without start code, with emulation prevention bytes."""
    return bytes([0x60 | kind]) + _EMULATION.sub(b"\x00\x00\x03", payload)


def sequence_parameters(width: int, height: int) -> bytes:
    """Return the SPS for pictures of ``width`` x ``height`` pixels, both multiples of 16."""
    out = BitWriter()
    out.bits(66, 8)  # profile_idc: baseline
    out.bits(0xC0, 8)  # constraint sets 0 and 1: constrained baseline, which browsers require
    out.bits(30, 8)  # level 3.0: I_PCM is bulky, lower levels cap the bit rate too low
    out.ue(0)  # seq_parameter_set_id
    out.ue(_FRAME_NUM_BITS - 4)
    out.ue(2)  # pic_order_cnt_type 2: output order is decoding order
    out.ue(1)  # max_num_ref_frames
    out.bits(0, 1)  # gaps_in_frame_num_value_allowed_flag
    out.ue(width // BLOCK - 1)
    out.ue(height // BLOCK - 1)
    out.bits(0b1100, 4)  # frame_mbs_only, direct_8x8_inference, no cropping, no VUI
    return nal(_NAL_SPS, out.finish())


def picture_parameters() -> bytes:
    """Return the PPS: CAVLC, one slice group, deblocking controlled per slice."""
    out = BitWriter()
    out.ue(0)  # pic_parameter_set_id
    out.ue(0)  # seq_parameter_set_id
    out.bits(0, 2)  # CAVLC, no bottom field order
    out.ue(0)  # num_slice_groups_minus1
    out.ue(0)  # num_ref_idx_l0_default_active_minus1
    out.ue(0)  # num_ref_idx_l1_default_active_minus1
    out.bits(0, 3)  # weighted_pred_flag, weighted_bipred_idc
    for _ in range(3):
        out.ue(0)  # pic_init_qp, pic_init_qs, chroma_qp_index_offset: se(0) and ue(0) are the same bit
    out.bits(0b100, 3)  # deblocking_filter_control_present, no constrained intra, no redundant pictures
    return nal(_NAL_PPS, out.finish())


def _header(slice_type: int, frame_num: int, *, idr: bool) -> BitWriter:
    out = BitWriter()
    out.ue(0)  # first_mb_in_slice
    out.ue(slice_type)
    out.ue(0)  # pic_parameter_set_id
    out.bits(frame_num % (1 << _FRAME_NUM_BITS), _FRAME_NUM_BITS)
    if idr:
        out.ue(0)  # idr_pic_id
        out.bits(0, 2)  # no_output_of_prior_pics, long_term_reference
    else:
        out.bits(0, 3)  # no override of the reference count, no list modification, sliding window marking
    out.ue(0)  # slice_qp_delta, se(0)
    out.ue(1)  # disable_deblocking_filter_idc: the samples are exact, a filter would blur them
    return out


def _pcm(out: BitWriter, mb_type: int, samples: bytes) -> None:
    out.ue(mb_type)
    out.align()
    out.raw(samples)


def key_frame(blocks: list[bytes]) -> bytes:
    """Return an IDR slice that stores every macroblock of ``blocks``."""
    out = _header(7, 0, idr=True)
    for samples in blocks:
        _pcm(out, _I_PCM_IN_I_SLICE, samples)
    return nal(_NAL_IDR, out.finish())


def delta_frame(blocks: list[bytes], before: list[bytes], frame_num: int) -> bytes:
    """Return a P slice that skips the macroblocks equal to those of ``before`` and stores the others."""
    out = _header(5, frame_num, idr=False)
    skipped = 0
    for samples, previous in zip(blocks, before, strict=True):
        if samples == previous:
            skipped += 1
            continue
        out.ue(skipped)
        _pcm(out, _I_PCM_IN_P_SLICE, samples)
        skipped = 0
    if skipped:
        out.ue(skipped)
    return nal(_NAL_SLICE, out.finish())


@dataclass(frozen=True)
class EncodedFrame:
    """One coded frame: its NAL unit, and whether a player may start here."""

    data: bytes
    is_key: bool


def encode(pictures: Iterable[Picture], *, key_every: int) -> Iterator[EncodedFrame]:
    """Yield one :class:`EncodedFrame` per picture, with a key frame at least every ``key_every`` frames."""
    before: list[bytes] = []
    for number, picture in enumerate(pictures):
        blocks = picture.macroblocks()
        since_key = number % key_every
        if since_key == 0:
            yield EncodedFrame(key_frame(blocks), True)
        else:
            yield EncodedFrame(delta_frame(blocks, before, since_key), False)
        before = blocks
