#!/usr/bin/env bash
# Makes the Python environment that the oracle tests compare with (torch, transformers, tokenizers, peft, llama.cpp as
# xllamacpp, gguf).
# lectern itself never needs Python. Without this environment the oracle tests report "skipped".
#   scripts/oracle-venv.sh [FOLDER]      default: build/oracle-venv
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-build/oracle-venv}
[ -x "$folder/bin/python3" ] || python3 -m venv "$folder"
"$folder/bin/pip" install -q torch==2.15.0 transformers==5.23.0 tokenizers safetensors numpy pillow torchvision h5py xllamacpp gguf peft
"$folder/bin/python3" -c 'import torch, transformers; print("oracle: torch", torch.__version__, "transformers", transformers.__version__)'
