"""The DiT stage: condition maps and a portrait into a video diffusion model, and its pictures back."""
