"""What decoders say is caught; what anybody else says meanwhile comes out."""

import subprocess
import sys
import threading

import cv2
import numpy as np

from fcnedge.runtime.run.decoder_words import decoder_words


def test_words_of_a_real_decoder_are_caught_and_lines_of_others_come_out_unchanged(tmp_path, capfd):
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    ok, data = cv2.imencode(".jpg", noise)
    assert ok
    half = np.frombuffer(data.tobytes()[: len(data) // 2] + b"\xff\xd9", np.uint8)
    with decoder_words() as words:
        speaker = threading.Thread(target=lambda: sys.__stderr__.write("\rother: 3 ms"))
        sys.__stderr__.flush()
        speaker.start()
        speaker.join()
        sys.__stderr__.flush()
        assert cv2.imdecode(half, cv2.IMREAD_COLOR) is not None
        print("and more", file=sys.__stderr__, flush=True)
    assert len(words) == 1
    assert words[0].startswith(("Corrupt JPEG data", "Premature end"))
    assert capfd.readouterr().err == "\rother: 3 msand more\n"


def test_blocks_of_two_threads_take_turns_and_standard_error_is_as_before(capfd):
    heard = {}

    def listen(name):
        with decoder_words() as words:
            print(f"libpng warning: {name}", file=sys.__stderr__, flush=True)
        heard[name] = words

    threads = [threading.Thread(target=listen, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {name: [f"libpng warning: {name}"] for name in "abcdefgh"}
    print("after", file=sys.__stderr__, flush=True)
    assert capfd.readouterr().err == "after\n"


def test_logged_line_of_another_source_is_not_swallowed_by_pictures_that_are_read(tmp_path, fcn_run, pictures):
    """Forty pictures are decoded while one of the other source, which is damaged, is named in the log."""
    shots = pictures("many", "red", 40)
    broken = pictures("broken", "red", 1)
    (broken / "1.png").write_bytes((broken / "0.png").read_bytes()[:60])
    done = fcn_run(shots, broken, "null://")
    assert (done.code, done.result["frames"]) == (0, 41)
    line, _ = done.errors  # and how many were passed over
    assert line.startswith(f"fcn-run: {broken / '1.png'} is truncated")


def test_closed_standard_error_is_no_error():
    code = (
        "import os; from fcnedge.runtime.run.decoder_words import decoder_words\n"
        "with decoder_words() as words: os.write(2, b'libpng error: x\\nother\\n')\n"
        "assert words == ['libpng error: x']"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as child:
        child.stderr.close()
        assert child.wait(timeout=60) == 0
