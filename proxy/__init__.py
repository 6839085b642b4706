"""The head: camera, head model, landmarks, fit, rasteriser, rendering and texture."""
