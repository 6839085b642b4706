"""Writes proxy/assets/portrait.jpg, the demo's portrait: a crop of scikit-image's `astronaut` (NASA, public domain).

    python tools/make_portrait.py
"""

from pathlib import Path

import skimage.data
from PIL import Image

X, Y, SIZE = 82, 0, 288
ASSET = Path(__file__).resolve().parents[1] / "proxy" / "assets" / "portrait.jpg"

if __name__ == "__main__":
    picture = Image.fromarray(skimage.data.astronaut()).crop((X, Y, X + SIZE, Y + SIZE))
    picture.resize((512, 512), Image.Resampling.LANCZOS).save(ASSET, quality=92, optimize=True)
    print(f"{ASSET}: {ASSET.stat().st_size} bytes")
