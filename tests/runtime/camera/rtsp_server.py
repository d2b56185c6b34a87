"""A real RTSP camera for the tests, by GStreamer's own server: numbered grey frames at 25 frames/s on loopback.

Run by a Python that has GStreamer's bindings, which is seldom that of a virtual environment:

    python3 rtsp_server.py PORT CODEC USER PASSWORD

CODEC is jpeg or h264. Frame n since the stream began is grey of level 24 + 8 (n mod 26).
"""

from __future__ import annotations

import sys
from typing import Any

import gi  # type: ignore[import-not-found, unused-ignore]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found, unused-ignore]  # noqa: E402

WIDTH, HEIGHT, FPS, NUMBERS = 320, 240, 25, 26
ENCODERS = {
    "jpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
    "h264": "openh264enc gop-size=25 ! h264parse ! rtph264pay config-interval=1 name=pay0 pt=96",
}


class NumberedFrames(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
    def __init__(self, codec: str) -> None:
        super().__init__()
        self._full_range = codec == "jpeg"
        self.set_launch(
            "( appsrc name=source is-live=true format=time do-timestamp=true "
            f"caps=video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={FPS}/1 ! {ENCODERS[codec]} )"
        )
        self.set_shared(True)

    def do_configure(self, media: Any) -> None:
        source = media.get_element().get_child_by_name("source")
        number = 0

        def push() -> bool:
            nonlocal number
            level = 24 + 8 * (number % NUMBERS)
            # JPEG has luma from 0 to 255, video from 16 to 235.
            luma = level if self._full_range else round(16 + level * 219 / 255)
            number += 1
            picture = bytes([luma]) * (WIDTH * HEIGHT) + b"\x80" * (WIDTH * HEIGHT // 2)
            return bool(source.emit("push-buffer", Gst.Buffer.new_wrapped(picture)) == Gst.FlowReturn.OK)

        GLib.timeout_add(1000 // FPS, push)


def main(port: str, codec: str, user: str, password: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    authority = GstRtspServer.RTSPAuth()
    authority.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(authority)
    factory = NumberedFrames(codec)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/door", factory)
    if not server.attach(None):
        sys.exit(f"port {port} is taken")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
