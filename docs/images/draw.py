"""
Draws the pictures of `how-it-works.md`: `python docs/images/draw.py`.

Facts of the network are those of `CitrinetConfig`.
"""

from pathlib import Path
from xml.sax.saxutils import escape

from citrinet import CitrinetConfig

# A picture has a ground of its own: the site can be dark where the browser is light.
_STYLE = """
.ground { fill: #fff } .box { fill: #eef3fb; stroke: #5b7db8 } .part { fill: #fff; stroke: #5b7db8 }
text { fill: #1c2733; font: 14px system-ui, sans-serif } .small { fill: #56606b; font-size: 12px }
.code { font: 12px ui-monospace, monospace } .line { fill: none; stroke: #56606b; stroke-width: 1.5 }
.head { fill: #56606b }
@media (prefers-color-scheme: dark) {
.ground { fill: #15191f } .box { fill: #22304a; stroke: #7f9fd4 } .part { fill: #15191f; stroke: #7f9fd4 }
text { fill: #e6eaef } .small { fill: #a9b3be } .line { stroke: #a9b3be } .head { fill: #a9b3be }
}"""


class Picture:
    """An SVG that grows."""

    def __init__(self, width: int, height: int, title: str):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img"><title>{escape(title)}</title><style>{_STYLE}</style>',
            '<marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
            '<path class="head" d="M0 0 8 4 0 8Z"/></marker>',
            f'<rect class="ground" width="{width}" height="{height}" rx="8"/>',
        ]

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> None:
        """Words on a base line."""
        self.parts.append(f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>')

    def box(self, x: float, y: float, width: float, height: float, *lines: str, kind: str = "box") -> None:
        """A box with a line of words, and smaller ones under it."""
        self.parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>')
        top = y + height / 2 - 9 * (len(lines) - 1) + 5
        for number, line in enumerate(lines):
            self.text(x + width / 2, top + 18 * number, line, "small" if number else "")

    def arrow(self, *points: tuple[float, float], head: bool = True) -> None:
        """A line through points."""
        path = " ".join(f"{x},{y}" for x, y in points)
        end = ' marker-end="url(#head)"' if head else ""
        self.parts.append(f'<polyline class="line" points="{path}"{end}/>')

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_text("\n".join([*self.parts, "</svg>", ""]), encoding="utf-8")


def draw_way() -> Picture:
    """The way of a recording, from file to result."""
    stages = [
        ("File", "bus.flac, 3.1 s", "audio_file_citrinet.py"),
        ("Samples", "(50000,) float32, mono, 16 kHz", "audio_citrinet.py, resampling_citrinet.py"),
        ("Features", "(320, 80), a frame every 10 ms; 8 of padding", "feature_extraction_citrinet.py"),
        ("Hidden states", "(80, 384), a frame every 40 ms", "modeling_citrinet.py"),
        ("Log-probabilities", "(80, 4583): for each frame, of each token", "CTC head in modeling_citrinet.py"),
        ("Tokens", "14 tokens with their frames", "decoding_citrinet.py, language_model/"),
        ("Text", "with the markers of entities", "tokenization_citrinet.py"),
        ("Transcript", "without markers; where entities stand", "transcript_citrinet.py"),
        ("Result", "times, entities, tags, confidence", "result_citrinet.py"),
    ]
    picture = Picture(720, 62 * len(stages) + 18, "The way of a recording from file to result")
    for number, (name, what, module) in enumerate(stages):
        y = 16 + 62 * number
        picture.box(16, y, 330, 44, name, what)
        picture.text(366, y + 26, module, "code", "start")
        if number:
            picture.arrow((181, y - 18), (181, y - 2))
    hidden, result = 16 + 62 * 3 + 36, 16 + 62 * 8 + 36
    picture.arrow((346, hidden), (690, hidden), (690, result), (348, result))
    picture.text(680, result - 50, "mean over the frames,", "small", "end")
    picture.text(680, result - 34, "tag heads: 3 + 4 + 3 logits", "small", "end")
    return picture


def _groups(config: CitrinetConfig) -> list[tuple[int, int]]:
    """First and last block of each stretch that begins with a stride, or is the first or last block."""
    last = config.num_hidden_layers - 1
    starts = [0, *(block for block in range(1, last) if config.strides[block] > 1), last]
    return [(start, end - 1) for start, end in zip(starts, [*starts[1:], last + 1], strict=True)]


def draw_network(config: CitrinetConfig) -> Picture:
    """Blocks and heads on the left, what is in a block on the right."""
    picture = Picture(720, 560, "The network: blocks and heads, and what is in a block")
    picture.box(16, 16, 250, 34, f"features (T, {config.num_mel_bins})", kind="part")
    rate, y = 1, 72
    for first, last in _groups(config):
        rate *= config.strides[first]
        kernels = sorted(set(config.kernel_sizes[first : last + 1]))
        name = f"B{first}" if first == last else f"B{first} to B{last}"
        kernel = f"kernel {kernels[0]}" + (f" to {kernels[-1]}" if len(kernels) > 1 else "")
        stride = f", B{first} strides by {config.strides[first]}" if config.strides[first] > 1 else ""
        frames = f"T / {rate}" if rate > 1 else "T"
        picture.box(16, y, 250, 48, f"{name}: ({frames}, {config.hidden_sizes[last]})", kernel + stride)
        picture.arrow((141, y - 22), (141, y - 2))
        y += 70
    picture.arrow((141, y - 22), (141, y - 10), (76, y - 10), (76, y + 6))
    picture.arrow((141, y - 22), (141, y - 10), (206, y - 10), (206, y + 6))
    picture.box(16, y + 8, 120, 48, "CTC head", f"(T / {rate}, tokens)")
    picture.box(146, y + 8, 120, 48, "mean over T", f"({config.hidden_size},)")
    picture.arrow((206, y + 56), (206, y + 76))
    picture.box(146, y + 78, 120, 48, "tag heads", "one a category")

    x = 320
    picture.parts.append(f'<rect class="box" x="{x}" y="16" width="384" height="528" rx="6"/>')
    last = config.num_hidden_layers - 1
    picture.text(x + 14, 38, f"A block, B1 to B{last - 1}", anchor="start")
    picture.text(x + 370, 38, f"B0 and B{last}: once, no residual", "small", "end")
    middle = x + 130
    picture.arrow((middle, 50), (middle, 76))
    picture.parts.append(f'<rect class="part" x="{x + 20}" y="78" width="220" height="172" rx="6"/>')
    repeats = config.num_repeats[1]
    steps = ["depthwise convolution", "pointwise product", "batch normalisation", "ReLU, dropout"]
    for number, line in enumerate(steps):
        picture.text(middle, 106 + 30 * number, line)
    picture.text(middle, 232, f"{repeats} times; the last without ReLU,", "small")
    picture.text(middle, 246, "and with the block's stride", "small")
    picture.arrow((middle, 250), (middle, 276))
    gate = ["× gate of squeeze-excitation", "mean over T, C to C / 8, ReLU,", "C / 8 to C, sigmoid"]
    picture.box(x + 20, 278, 220, 66, *gate, kind="part")
    picture.arrow((middle, 344), (middle, 384))
    picture.box(middle - 16, 386, 32, 28, "+", kind="part")
    picture.box(x + 262, 180, 110, 84, "residual", "strided,", "pointwise,", "batch norm.", kind="part")
    picture.arrow((middle, 60), (x + 317, 60), (x + 317, 178))
    picture.arrow((x + 317, 264), (x + 317, 400), (middle + 18, 400))
    picture.arrow((middle, 414), (middle, 432))
    picture.box(x + 20, 434, 220, 30, "ReLU, dropout", kind="part")
    picture.arrow((middle, 464), (middle, 478))
    picture.box(x + 20, 480, 220, 48, "adapters, if there are any", "x + up(SiLU(down(norm(x))))", kind="part")
    return picture


def main(folder: Path) -> None:
    """Draw all."""
    draw_way().write(folder / "way.svg")
    draw_network(CitrinetConfig()).write(folder / "network.svg")


if __name__ == "__main__":
    main(Path(__file__).parent)
