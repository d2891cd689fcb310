"""A real RTSP server that takes streams, GStreamer's: `python3 rtsp_recorder.py user:password`, on loopback.

Run by the system's Python, which Debian's bindings belong to. Says "ready PORT", and one line for each picture that is
published on /live and decoded: its width, height and mean.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "streams"))
from rtsp_server import Gst, GstRtspServer, serve  # pyright: ignore[reportMissingImports]


def decoded(sink):
    sample = sink.emit("pull-sample")
    size = sample.get_caps().get_structure(0)
    data = sample.get_buffer().extract_dup(0, sample.get_buffer().get_size())
    sys.stdout.write(f"{size.get_value('width')} {size.get_value('height')} {sum(data) // len(data)}\n")
    sys.stdout.flush()
    return Gst.FlowReturn.OK


def configured(_, media):
    sink = media.get_element().get_by_name("pictures")
    sink.connect("new-sample", decoded)


Gst.init(None)
recorder = GstRtspServer.RTSPMediaFactory.new()
recorder.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
recorder.set_launch(
    "( rtph264depay name=depay0 ! avdec_h264 ! videoconvert ! video/x-raw,format=BGR "
    "! appsink name=pictures emit-signals=true sync=false )"
)
recorder.connect("media-configure", configured)
serve(recorder, "/live", login=sys.argv[1])
