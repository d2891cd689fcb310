"""A real RTSP server, GStreamer's: `python3 rtsp_server.py PORT`, on loopback, says "ready PORT" and serves /clip.

Run by the system's Python, which Debian's bindings belong to. PORT 0 is any. With a second argument, user:password.
"""

import sys

import gi  # pyright: ignore[reportMissingImports]  # the system's, not this project's

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402  # pyright: ignore[reportMissingImports]

CLIP = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 config-interval=1 )"
)


def serve(factory, path, port="0", login=None):
    """Serve what the factory makes, for good, to whoever knows user:password where there is a login."""
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(port)
    if login is not None:
        ask_for(login, server, factory)
    server.get_mount_points().add_factory(path, factory)
    if not server.attach(None):
        sys.exit(f"port {port} is taken")
    sys.stdout.write(f"ready {server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


def ask_for(login, server, factory):
    user, _, password = login.partition(":")
    auth = GstRtspServer.RTSPAuth.new()
    token = GstRtspServer.RTSPToken.new()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions.new()
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(permissions)


if __name__ == "__main__":
    Gst.init(None)
    clip = GstRtspServer.RTSPMediaFactory.new()
    clip.set_launch(CLIP)
    clip.set_shared(True)
    serve(clip, "/clip", *sys.argv[1:])
