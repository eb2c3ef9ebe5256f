"""Gradio demo of Citrinet speech recognition. Run `python space/app.py`; README.md in this folder has the settings."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

import view
from citrinet import formats
from recognition import (
    CHOICES,
    MAX_MB,
    MAX_SECONDS,
    Listener,
    Recognition,
    Refused,
    align,
    chosen,
    decode_piece,
    read,
    recognise,
    recognizer,
)

HERE = Path(__file__).parent
EXAMPLES = next(folder for folder in (HERE / "examples", HERE.parent / "examples") if folder.is_dir())
KEEP_S = 300  # seconds after which uploads are deleted
LABELS = list(CHOICES)
FORMATS = {
    "JSON": "json",
    "text": "text",
    "SRT": "srt",
    "WebVTT": "vtt",
    "TextGrid": "textgrid",
    "CTM": "ctm",
    "TSV": "tsv",
}
EXAMPLES_LABEL = "Examples (synthetic speech) · 合成语音示例"
HEADING = f"""# Citrinet 语音识别
Mandarin speech recognition with entities and speaker tags, on a CPU<br>
普通话识别，标出实体，判断说话人属性

Files of up to {MAX_SECONDS / 60:g} min and {MAX_MB:g} MB. Audio is deleted after {KEEP_S // 60} minutes; only timings
are logged<br>
单个文件最长 {MAX_SECONDS / 60:g} 分钟、{MAX_MB:g} MB；音频在 {KEEP_S // 60} 分钟后删除，日志只记录耗时
"""


def run(path: str | None, choice: str) -> Iterator[float | Recognition]:
    """Read and transcribe a file."""
    return recognise(read(path), *chosen(choice))


@contextmanager
def told() -> Iterator[None]:
    """Show a refusal as a message on the page, escaped because the page reads it as HTML."""
    try:
        yield
    except Refused as error:
        raise gr.Error(escape(str(error)), title="citrinet", duration=12, print_exception=False) from error


def transcribe(
    path: str | None,
    choice: str = LABELS[0],
    hot_words: str = "",
    language_model: bool = True,
    progress=gr.Progress(),
):
    """
    Transcribe one recording.

    Args:
        path: the audio file.
        choice: model and precision.
        hot_words: words to prefer, separated by spaces or commas.
        language_model: whether to use the model's own language model, if it has one.

    Returns:
        The result as HTML and as JSON.
    """
    with told():
        for step in recognise(read(path), *chosen(choice), hot_words or "", language_model):
            if isinstance(step, Recognition):
                yield view.page(step), json.dumps(step.result, ensure_ascii=False, indent=2)
            elif step < 1:
                progress(step)
                yield view.note(f"{step:.0%}"), ""


def compare(path: str | None, first: str, second: str):
    """
    Transcribe a recording with two models or precisions.

    Args:
        path: the audio file.
        first: the first model and precision.
        second: the second model and precision.

    Returns:
        Both results as HTML.
    """
    pages: list[str] = []
    with told():
        for choice in (first, second):
            *_, recognition = run(path, choice)
            assert isinstance(recognition, Recognition)
            pages.append(view.page(recognition))
            yield pages[0], pages[1] if len(pages) > 1 else view.note("…")


def align_text(path: str | None, text: str, choice: str):
    """
    Find when each character of a text is said.

    Args:
        path: the audio file.
        text: its transcript.
        choice: model and precision.

    Returns:
        The alignment as HTML and as JSON.
    """
    with told():
        found = align(read(path), text or "", *chosen(choice))
        missing = [word["text"] for word in found.result["words"] if not word["said"]]
        warning = view.note(f"Likely not said · 可能没有说: {' '.join(missing)}") if missing else ""
        return view.page(found) + warning, json.dumps(found.result, ensure_ascii=False, indent=2)


def transcribe_files(paths: list[str] | None, choice: str, kind: str, progress=gr.Progress()):
    """
    Transcribe several recordings.

    Args:
        paths: audio files.
        choice: model and precision.
        kind: one of `FORMATS`.

    Returns:
        A table of file name, seconds and transcript, and the files to download.
    """
    if not paths:
        raise gr.Error("Choose files first. · 请先选择文件。", title="citrinet", print_exception=False)
    rows: list[list[Any]] = []
    done: list[tuple[str, Recognition]] = []
    for index, path in enumerate(paths):
        name = Path(path).name
        try:
            for step in run(path, choice):
                if isinstance(step, Recognition):
                    done.append((f"{index + 1}-{Path(name).stem}", step))
                    said = step.result["transcript"] if step.is_speech else f"⚠ {view.NO_SPEECH}"
                    rows.append([name, round(step.duration, 1), said])
                else:
                    progress((index + step) / len(paths), desc=name)
                    yield rows, None
        except Refused as error:  # the other files are transcribed
            rows.append([name, None, f"⚠ {error}"])
    with tempfile.TemporaryDirectory() as folder:  # Gradio copies the files before it continues
        yield rows, write_files(done, FORMATS[kind], Path(folder)) or None


def write_files(done: list[tuple[str, Recognition]], kind: str, folder: Path) -> list[str]:
    """Write a file for each named recording, and return their paths."""
    suffix = formats.FORMATS[kind].suffix
    try:
        return [
            str(formats.write(one.result, folder / f"{name}{suffix}", kind, duration=one.duration))
            for name, one in done
        ]
    except ValueError as error:  # a model of another library
        message = "This model gives no times: choose JSON or text. · 该模型不提供时间，请选择 JSON 或 text。"
        raise gr.Error(message, title="citrinet", print_exception=False) from error


def start_listening(choice: str):
    """
    Start transcribing the page's microphone.

    Args:
        choice: model and precision.

    Returns:
        A listener, its text, and the timer, started.
    """
    with told():
        return Listener(*chosen(choice)), "", gr.Timer(active=True)


def listen(samples: str, sampling_rate: float, listener: Listener | None):
    """
    Transcribe the next samples of the page's microphone.

    Args:
        samples: samples since the last call, in base64.
        sampling_rate: sampling rate of the samples in Hz.
        listener: the listener, with the text so far.

    Returns:
        The listener, and the text so far.
    """
    if listener is None:
        return None, gr.skip()
    with told():
        return listener, listener.hear(decode_piece(samples), int(sampling_rate))


def stop_listening(samples: str, sampling_rate: float, listener: Listener | None):
    """
    Transcribe the last samples of the page's microphone, and stop.

    Args:
        samples, sampling_rate, listener: as in `listen`.

    Returns:
        The text, and the timer, stopped.
    """
    if listener is None:
        return gr.skip(), gr.Timer(active=False)
    listen(samples, sampling_rate, listener)
    with told():
        return listener.end(), gr.Timer(active=False)


def hear(samples: list[float] | None, sampling_rate: float, choice: str, listener: Listener | None):
    """
    Transcribe a stream piece by piece; each client session has its own text.

    Args:
        samples: the next samples of one channel, from -1 to 1; an empty list to end the speech; null to start again.
        sampling_rate: sampling rate of the samples in Hz.
        choice: model and precision, read with the first piece.

    Returns:
        The text so far.
    """
    if samples is None:
        return None, ""
    with told():
        try:
            piece, rate = np.array(samples, np.float32), int(sampling_rate)
        except (TypeError, ValueError) as error:
            raise Refused("Samples must be a list of numbers from -1 to 1, and the sampling rate a number.") from error
        listener = listener or Listener(*chosen(choice))
        return listener, listener.hear(piece, rate) if len(piece) else listener.end()


def choice_of(index: int = 0, label: str = "Model · 模型") -> gr.Dropdown:
    """Make a menu of models and precisions."""
    return gr.Dropdown(LABELS, value=LABELS[index], label=label, interactive=True)


def sound() -> gr.Audio:
    """Make the input for a recording or a file."""
    return gr.Audio(sources=["upload", "microphone"], type="filepath", label="Recording · 录音")


def build() -> gr.Blocks:
    """Make the page."""
    clips = sorted(EXAMPLES.glob("*.flac"))
    gr.set_static_paths(clips)  # otherwise they are copied to the uploads, and deleted with them
    one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "network"}
    with gr.Blocks(title="Citrinet 语音识别", delete_cache=(min(60, KEEP_S), KEEP_S)) as demo:
        gr.Markdown(HEADING)
        with gr.Tab("Transcribe · 识别"):
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    audio = sound()
                    with gr.Row():
                        start = gr.Button("Transcribe · 识别", variant="primary")
                        stop = gr.Button("Stop · 停止")
                    choice = choice_of()
                    with gr.Accordion("Decoding · 解码", open=False):
                        hot_words = gr.Textbox("", label="Hot words, such as names · 热词", placeholder="汪环, 戴法权")
                        language_model = gr.Checkbox(True, label="Language model · 语言模型")
                    examples_column = gr.Column()
                with gr.Column(scale=3, min_width=300):
                    result = gr.HTML(view.note("The transcript appears here. · 结果显示在这里。"))
                    as_json = gr.Code(language="json", label="JSON", max_lines=16, elem_classes="ct-json")
            with examples_column:
                examples = gr.Examples([[str(clip)] for clip in clips], [audio], label=EXAMPLES_LABEL)
            work = {
                "fn": transcribe,
                "inputs": [audio, choice, hot_words, language_model],
                "outputs": [result, as_json],
                "show_progress_on": [result],
                **one_at_a_time,
            }
            event = gr.on([start.click, audio.upload, audio.stop_recording], api_name="transcribe", **work)
            tried = examples.load_input_event.then(api_visibility="private", **work)
            stop.click(None, cancels=[event, tried])
        with gr.Tab("Live · 实时"):
            live_choice = choice_of()
            with gr.Row():
                start_live = gr.Button("Listen · 开始", variant="primary")
                stop_live = gr.Button("Stop · 停止")
            text = gr.Textbox(label="Text so far · 已识别", lines=4, buttons=["copy"])
            listener, timer = gr.State(time_to_live=KEEP_S), gr.Timer(0.5, active=False)
            heard = [gr.Textbox(visible=False), gr.Number(visible=False), listener]
            private = {"concurrency_limit": 8, "concurrency_id": "live", "api_visibility": "private"}
            start_live.click(
                start_listening,
                [live_choice],
                [listener, text, timer],
                js="async choice => { await citrinetMicrophone.open(); return [choice]; }",
                api_name="start_microphone",
                **private,
            )
            timer.tick(  # one call at a time: the microphone buffers its samples until the next
                listen,
                heard,
                [listener, text],  # the state too, which otherwise expires
                js="() => [...citrinetMicrophone.take(), null]",
                api_name="microphone",
                show_progress="hidden",
                **private,
            )
            stop_live.click(
                stop_listening,
                heard,
                [text, timer],
                js="() => [...citrinetMicrophone.close(), null]",
                api_name="stop_microphone",
                **private,
            )
            piece, rate = gr.JSON(visible=False), gr.Number(16_000, visible=False)
            gr.on(
                [], hear, [piece, rate, live_choice, listener], [listener, text], concurrency_limit=8, api_name="listen"
            )
        with gr.Tab("Several files · 多个文件"):
            files = gr.File(file_count="multiple", type="filepath", label="Files · 文件")
            with gr.Row():
                files_choice = choice_of()
                kind = gr.Radio(list(FORMATS), value="JSON", label="Format · 格式")
            with gr.Row():
                start_files = gr.Button("Transcribe · 识别", variant="primary")
                stop_files = gr.Button("Stop · 停止")
            table = gr.Dataframe(
                headers=["file", "seconds", "transcript"],
                column_widths=["20%", "10%", "70%"],
                interactive=False,
                wrap=True,
            )
            download = gr.File(label="Download · 下载")
            event = start_files.click(
                transcribe_files,
                [files, files_choice, kind],
                [table, download],
                api_name="transcribe_files",
                **one_at_a_time,
            )
            stop_files.click(None, cancels=[event])
        with gr.Tab("Align · 对齐"):
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    spoken = sound()
                    known_text = gr.Textbox("", label="Text of the recording · 文本", lines=3)
                    align_choice = choice_of()
                    start_align = gr.Button("Align · 对齐", variant="primary")
                with gr.Column(scale=3, min_width=300):
                    aligned = gr.HTML(view.note("Click a character to hear it. · 点击文字即可播放。"))
                    aligned_json = gr.Code(language="json", label="JSON", max_lines=16, elem_classes="ct-json")
            start_align.click(
                align_text,
                [spoken, known_text, align_choice],
                [aligned, aligned_json],
                api_name="align",
                **one_at_a_time,
            )
        with gr.Tab("Compare · 对比"):
            clip = sound()
            with gr.Row():
                first, second = choice_of(0, "First model · 模型一"), choice_of(-1, "Second model · 模型二")
            both = gr.Button("Compare · 对比", variant="primary")
            with gr.Row():
                left, right = gr.HTML(), gr.HTML()
            both.click(compare, [clip, first, second], [left, right], api_name="compare", **one_at_a_time)
    return demo.queue(max_size=64)


def main() -> None:
    """Serve the page."""
    recognizer(*chosen(LABELS[0]))  # loaded before the first visitor comes
    look = {"css_paths": HERE / "page.css", "js": (HERE / "page.js").read_text(encoding="utf-8")}
    build().launch(**look, max_file_size=f"{MAX_MB:g}mb", theme=gr.themes.Soft())


if __name__ == "__main__":
    main()
