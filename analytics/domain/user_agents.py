"""Browser, operating system and kind of device, from a User-Agent: the families that matter, not versions.

A table of names that are looked for in order, since each browser names those it wants to be taken for: Edge says that
it is Chrome, and Chrome that it is Safari. Own, because the libraries with the full tables (a thousand expressions,
which take milliseconds for a text they have not met) tell more than is counted here.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Families(NamedTuple):
    """Names as people know them; empty: unknown."""

    browser: str
    os: str
    device: str


_BROWSERS: Sequence[tuple[str, str]] = (
    ("fban/", "Facebook"), ("fbav/", "Facebook"), ("instagram", "Instagram"), ("line/", "LINE"),
    ("micromessenger", "WeChat"), ("linkedinapp", "LinkedIn"), ("pinterest", "Pinterest"), ("snapchat", "Snapchat"),
    ("tiktok", "TikTok"), ("musical_ly", "TikTok"), ("gsa/", "Google app"), ("duckduckgo/", "DuckDuckGo"),
    ("ddg/", "DuckDuckGo"), ("edg/", "Edge"), ("edga/", "Edge"), ("edgios/", "Edge"), ("edge/", "Edge"),
    ("opr/", "Opera"), ("opt/", "Opera"), ("opios/", "Opera"), ("opera", "Opera"), ("vivaldi/", "Vivaldi"),
    ("yabrowser/", "Yandex"), ("samsungbrowser/", "Samsung Internet"), ("ucbrowser/", "UC Browser"),
    ("miuibrowser/", "Mi Browser"), ("huaweibrowser/", "Huawei Browser"), ("whale/", "Whale"), ("brave/", "Brave"),
    ("silk/", "Silk"), ("fxios/", "Firefox"), ("focus/", "Firefox"), ("seamonkey/", "SeaMonkey"),
    ("firefox/", "Firefox"), ("crios/", "Chrome"), ("; wv)", "Android WebView"), ("chromium/", "Chromium"),
    ("chrome/", "Chrome"), ("msie ", "Internet Explorer"), ("trident/", "Internet Explorer"),
    ("android", "Android Browser"), ("safari/", "Safari"), ("applewebkit/", "WebKit"),
)  # fmt: skip
_SYSTEMS: Sequence[tuple[str, str]] = (
    ("windows phone", "Windows Phone"), ("windows", "Windows"), ("xbox", "Xbox"), ("harmonyos", "HarmonyOS"),
    ("kaios", "KaiOS"), ("tizen", "Tizen"), ("web0s", "webOS"), ("webos", "webOS"), ("android", "Android"),
    ("iphone", "iOS"), ("ipod", "iOS"), ("ipad", "iPadOS"), ("cros ", "ChromeOS"), ("mac os x", "macOS"),
    ("macintosh", "macOS"), ("playstation", "PlayStation"), ("nintendo", "Nintendo"), ("freebsd", "FreeBSD"),
    ("openbsd", "OpenBSD"), ("linux", "Linux"), ("x11", "Unix"),
)  # fmt: skip
_TELEVISIONS = ("smart-tv", "smarttv", "smart tv", "appletv", "googletv", "android tv", "hbbtv", "roku", "bravia",
                "aft", "crkey", "web0s", "tizen")  # fmt: skip
_TABLETS = ("ipad", "tablet", "kindle", "silk/", "playbook")
_CONSOLES = ("playstation", "xbox", "nintendo")
_DESKTOPS = frozenset(
    {"Windows", "macOS", "Linux", "ChromeOS", "FreeBSD", "OpenBSD", "Unix"}
)  # of what is none of the above


def families(user_agent: str) -> Families:
    """What a User-Agent says of its browser, operating system and device."""
    text = user_agent.lower()
    system = _first(_SYSTEMS, text)
    return Families(_first(_BROWSERS, text), system, _device(text, system))


def _first(table: Sequence[tuple[str, str]], text: str) -> str:
    return next((name for word, name in table if word in text), "")


def _device(text: str, system: str) -> str:
    if any(word in text for word in _CONSOLES):
        return "Console"
    if any(word in text for word in _TELEVISIONS) and "mobile" not in text:
        return "TV"
    if any(word in text for word in _TABLETS) or (system in {"Android", "HarmonyOS"} and "mobile" not in text):
        return "Tablet"
    if "mobi" in text or system in {"iOS", "Android", "HarmonyOS", "KaiOS", "Windows Phone"}:
        return "Phone"
    return "Desktop" if system in _DESKTOPS else ""
