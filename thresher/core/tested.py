"""Written by `make lock`: the versions that Thresher is tested with."""

TESTED = {
    "accelerate": "1.15.0",
    "numpy": "2.4.6",
    "safetensors": "0.8.0",
    "scipy": "1.17.1",
    "sklearn": "1.9.1",
    "torch": "2.13.0",
    "transformers": "5.24.0",
}
