from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunogate.errors import UsageError
from immunogate.runtime.camera.address import parse_address, redact


@given(user=st.text(), password=st.text())
def test_redact_hides_any_user_and_password(user: str, password: str) -> None:
    assert redact(f"rtsp://{user}:{password}@door.example:554/main") == "rtsp://***@door.example:554/main"


@given(st.text(alphabet=st.characters(exclude_characters="@=")))
def test_redact_leaves_an_address_without_credentials_alone(uri: str) -> None:
    assert redact(uri) == uri


@given(st.text())
def test_redact_twice_is_redact_once(uri: str) -> None:
    assert redact(redact(uri)) == redact(uri)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (
            "rtsp://10.0.0.5/s?user=admin&password=hunter2&channel=1",
            "rtsp://10.0.0.5/s?user=***&password=***&channel=1",
        ),
        ("rtsp://10.0.0.5/user=admin_password=hunter2_channel=1", "rtsp://10.0.0.5/user=***"),
        ("RTSP:/joe:hunter2@h/x", "RTSP:/***@h/x"),
        (
            "gst:rtspsrc location=rtsp://joe:hunter2@h/x user-id=joe user-pw='hunter2 2' ! appsink",
            "gst:rtspsrc location=rtsp://***@h/x user-id=*** user-pw=*** ! appsink",
        ),
        ("/videos/door@noon.mp4", "/videos/door@noon.mp4"),
        ("file:///videos/door@noon.mp4", "file:///videos/door@noon.mp4"),
    ],
)
def test_redact_examples(uri: str, shown: str) -> None:
    assert redact(uri) == shown


@pytest.mark.parametrize(
    ("uri", "scheme", "target"),
    [
        ("0", "v4l2", "/dev/video0"),
        ("12", "v4l2", "/dev/video12"),
        ("/dev/video3", "v4l2", "/dev/video3"),
        ("v4l2:///dev/video1?width=640", "v4l2", "/dev/video1"),
        ("clip.mp4", "path", "clip.mp4"),
        ("file:///a%20b/c.gif", "path", "/a b/c.gif"),
        ("file://localhost/c.gif", "path", "/c.gif"),
        ("rtsp://u:p@h:8554/x", "rtsp", "rtsp://u:p@h:8554/x"),
        ("RTSPS://h/x", "rtsp", "RTSPS://h/x"),
        ("csi://1?width=640", "csi", "1"),
        ("gst: videotestsrc ! appsink", "gst", "videotestsrc ! appsink"),
        ("synthetic://", "synthetic", ""),
    ],
)
def test_an_address_is_taken_apart(uri: str, scheme: str, target: str) -> None:
    address = parse_address(uri)
    assert (address.scheme, address.target) == (scheme, target)
    assert "u:p" not in address.name


@pytest.mark.parametrize(
    "uri",
    [
        "",
        " ",
        "a\0b",
        "http://h/x",
        "file://elsewhere/x",
        "rtsp://u:hunter2@/x",
        "rtsp://u:hunter2@h:99999/x",
    ],
)
def test_a_wrong_address_is_refused_without_its_password(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(uri)
    assert "hunter2" not in str(caught.value)


def test_an_unknown_scheme_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"ftp://.*Known are.*rtsp://.*csi://.*synthetic://"):
        parse_address("ftp://h/clip.mp4")


@given(st.text())
def test_parsing_gives_an_address_or_a_usage_error(uri: str) -> None:
    try:
        parse_address(uri)
    except UsageError:
        return


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "9999", "٣", "1" * 5000])
def test_an_option_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="whole number from 1 to 100"):
        parse_address(f"synthetic://?width={text}").integer("width", 5, 1, 100)
