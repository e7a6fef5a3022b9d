"""How many cells of each type, how large, how dark: from images to a table and files for QuPath and ImageJ.

python examples/biologist.py CHECKPOINT IMAGE…
"""

import sys
from pathlib import Path

import cellseg
from cellseg import formats
from cellseg.images import read_image
from cellseg.measurements import measured


def main(checkpoint: str, *images: str) -> None:
    """Print a line a class for each image; write its cells beside it."""
    model = cellseg.load(checkpoint)
    for path in map(Path, images):
        cells = model.predict(path)
        pixels = read_image(path)
        table = measured(cells, pixels)
        print(path.name)
        for name, count in cells.of_classes().items():
            of_class = table["class"] == name
            area = table["area"][of_class].mean() if count else 0.0
            print(f"  {name:16} {count:5} cells, mean area {area:6.1f} px")
        formats.write(cells, pixels, path.parent, path.stem, ["geojson", "rois", "overlay"])


if __name__ == "__main__":
    main(*sys.argv[1:])
