"""A headless Chromium, spoken to in its DevTools protocol over two pipes: no driver, no further package."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
WHY = "no chromium on PATH (apt-get install chromium)"
PLACES = "[...document.querySelectorAll('.plot')]"
PATIENCE = 120.0
"""Seconds until an answer is given up."""


class Browser:
    """One page. Use as a context manager.

    Args:
        width: of the window.
        height: of the window.
    """

    def __init__(self, width: int = 1280, height: int = 1000) -> None:
        assert CHROMIUM is not None, WHY
        self.errors: list[str] = []
        """Messages of errors and warnings on the console, exceptions nobody caught."""
        self._folder = tempfile.mkdtemp()
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        flags = (
            "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe --no-first-run"
        )
        offline = "--host-resolver-rules='MAP * ~NOTFOUND'"  # whatever the page would fetch fails
        command = f"exec {CHROMIUM} {flags} {offline} --user-data-dir={self._folder} --window-size={width},{height}"
        self._process = subprocess.Popen(
            ["bash", "-c", f"{command} about:blank 3<&{theirs_in} 4>&{theirs_out}"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer = b""
        self._id = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol, and its answer."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._id:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def open(self, path: Path) -> None:
        """Load a file, and wait until its plots are drawn."""
        self.call("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + PATIENCE
        drawn = "document.readyState === 'complete' && (document.documentElement.dataset.drawn ?? null)"
        while time.monotonic() < end:
            if self.js(drawn) or self.errors:
                return
            time.sleep(0.1)
        raise TimeoutError(f"{path}: not drawn")

    def js(self, code: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        answer = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def drawn(self) -> list[int]:
        """Of each plot of a report, how many marks it shows: lines, points and bars."""
        count = f"{PLACES}.map(p => p.querySelectorAll('.scatterlayer .trace, .barlayer .trace').length)"
        found: list[int] = self.js(count)
        return found

    def hover(self, plot: int, x: float, y: float) -> list[str] | None:
        """What a plot of a report says with the mouse at a point of its axes, line by line."""
        place = self.js(
            f"""(() => {{ const p = {PLACES}[{plot}]; p.scrollIntoView({{block: "center"}});
            const box = p.getBoundingClientRect(), l = p._fullLayout;
            return [box.x + l._size.l + l.xaxis.d2p({x}), box.y + l._size.t + l.yaxis.d2p({y})] }})()"""
        )
        self.move(0, 0)
        self.move(*place)
        lines: list[str] | None = self.js(
            f"""new Promise(async (done) => {{ for (let i = 0; i < 200; i++) {{
            const t = [...{PLACES}[{plot}].querySelectorAll('.hoverlayer .hovertext .nums .line')];
            if (t.length) return done(t.map((line) => line.textContent));
            await new Promise((r) => setTimeout(r, 50)); }} done(null); }})"""
        )
        return lines

    def move(self, x: float, y: float) -> None:
        """Move the mouse there."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self) -> bytes:
        """The page as it would be printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 20)
            assert part, "chromium has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(str(params["entry"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))
