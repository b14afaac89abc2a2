"""What the microscope shows is what the model computes: against transformers' own attentions and hidden states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from bottega.core.errors import UserError
from bottega.model.load import load_decoder
from bottega.model.microscope import copy_scores, induction_scores, logit_lens, look


def test_it_shows_what_transformers_shows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation="eager",
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    ids = torch.randint(0, 50, (17,))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    expected = theirs(ids[None], output_attentions=True, output_hidden_states=True)
    decoder = load_decoder(tmp_path)
    seen = look(decoder, ids)
    torch.testing.assert_close(seen.attention, torch.cat(expected.attentions), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen.residual[:-1], torch.cat(expected.hidden_states[:-1]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen.logits, expected.logits[0], atol=1e-5, rtol=1e-4)
    lens = logit_lens(decoder, seen.residual)
    assert lens.shape == (4, 17, 50)
    torch.testing.assert_close(lens[-1], seen.logits)
    assert not decoder.model.layers[0]._forward_hooks


def test_the_induction_score_reads_the_right_cells() -> None:
    ids = torch.tensor([5, 6, 7, 5, 8, 5])
    attention = torch.zeros(1, 1, 6, 6)
    attention[0, 0, 3, 1] = 0.5  # 5 → what followed it at place 0
    attention[0, 0, 5, 4] = 0.9  # 5 → what followed it at place 3
    assert induction_scores(attention, ids).item() == pytest.approx(0.7)
    attention[0, 0, 2, 0] = 0.4  # 7, before 5: the 5 at place 0
    attention[0, 0, 4, 0], attention[0, 0, 4, 3] = 0.1, 0.3  # 8, before 5: both
    assert copy_scores(attention, ids).item() == pytest.approx(0.4)
    with pytest.raises(UserError, match="occurs twice"):
        copy_scores(attention[..., :3, :3], torch.tensor([1, 2, 3]))
    with pytest.raises(UserError, match="occurs twice"):
        induction_scores(attention[..., :3, :3], torch.tensor([1, 2, 3]))
