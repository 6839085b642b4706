"""The pocket model: a small pixel-space diffusion model that runs on a CPU, and all that trains it."""
