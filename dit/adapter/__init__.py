"""The portrait adapter: what a video diffusion transformer is told about the head, added to it without touching its weights."""
