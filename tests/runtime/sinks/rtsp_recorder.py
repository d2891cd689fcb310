"""A real RTSP server that takes streams, GStreamer's: `python3 rtsp_recorder.py user:password`, on loopback.

Run by the system's Python, which Debian's bindings belong to. Says "ready PORT", and one line for each picture that is
published on /live and decoded: its width, height and mean.
"""

import sys

import gi  # pyright: ignore[reportMissingImports]  # the system's, not this project's

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402  # pyright: ignore[reportMissingImports]


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def decoded(sink):
    sample = sink.emit("pull-sample")
    size = sample.get_caps().get_structure(0)
    data = sample.get_buffer().extract_dup(0, sample.get_buffer().get_size())
    say(f"{size.get_value('width')} {size.get_value('height')} {sum(data) // len(data)}")
    return Gst.FlowReturn.OK


def configured(_, media):
    sink = media.get_element().get_by_name("pictures")
    sink.connect("new-sample", decoded)


Gst.init(None)
server = GstRtspServer.RTSPServer.new()
server.set_address("127.0.0.1")
server.set_service("0")
factory = GstRtspServer.RTSPMediaFactory.new()
factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
factory.set_launch(
    "( rtph264depay name=depay0 ! avdec_h264 ! videoconvert ! video/x-raw,format=BGR "
    "! appsink name=pictures emit-signals=true sync=false )"
)
factory.connect("media-configure", configured)
user, _, password = sys.argv[1].partition(":")
auth = GstRtspServer.RTSPAuth.new()
token = GstRtspServer.RTSPToken.new()
token.set_string("media.factory.role", "user")
auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
server.set_auth(auth)
permissions = GstRtspServer.RTSPPermissions.new()
permissions.add_permission_for_role("user", "media.factory.access", True)
permissions.add_permission_for_role("user", "media.factory.construct", True)
factory.set_permissions(permissions)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
say(f"ready {server.get_bound_port()}")
GLib.MainLoop().run()
