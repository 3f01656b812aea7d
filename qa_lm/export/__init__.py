"""A trained model for other tools: GGUF for llama.cpp and Ollama, safetensors in half precision, with proofs."""
