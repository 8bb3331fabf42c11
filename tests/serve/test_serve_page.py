"""The service's page in a real browser: an image is chosen, the camera given, the viewer shows what was found."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import Browser, find_browser
from fake_detector import COLORS, FakeDetector
from monolift.inference.model import Model

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
import uvicorn

from monolift.serve import create_app

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium or Chrome on the path")


@pytest.fixture
def address() -> Iterator[str]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(Model(FakeDetector(), "fake")), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join(20)


def choose(browser: Browser, selector: str, file: Path) -> None:
    document = browser.send("DOM.getDocument")["root"]["nodeId"]
    node = browser.send("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
    browser.send("DOM.setFileInputFiles", nodeId=node, files=[str(file)])
    browser.settle()


def test_a_image_is_dropped_and_its_boxes_are_seen(address: str, tmp_path: Path) -> None:
    pixels = np.full((192, 640, 3), 90, np.uint8)
    pixels[80:120, 200:320] = COLORS["Car"]
    image, broken = tmp_path / "street.png", tmp_path / "broken.png"
    Image.fromarray(pixels).save(image)
    broken.write_bytes(image.read_bytes()[:100])
    assert PROGRAM is not None
    with Browser(PROGRAM) as browser:
        browser.send("Page.navigate", url=address)
        browser.wait(
            "document.readyState === 'complete' && document.querySelector('#model').textContent.includes('fake')"
        )
        assert browser.js("document.querySelector('#go').disabled")

        choose(browser, "#drop input", broken)
        browser.click_on("#go")
        browser.wait("document.querySelector('#status').className === 'bad'")
        assert "image: not a readable image" in browser.text("#status")

        choose(browser, "#drop input", image)
        browser.click_on("[value=camera]")
        for name, value in (("fx", 700), ("fy", 700), ("cx", 320), ("cy", 96)):
            browser.js(f"document.querySelector('#{name}').value = {value}")
        browser.click_on("#go")
        browser.wait("document.querySelector('#status').innerText.startsWith('Done')")
        page = browser.js("document.querySelector('#view').srcdoc")
        assert "street" in page and not browser.js("document.querySelector('#view').hidden")
        assert browser.js("[...document.querySelectorAll('#status a')].map(a => a.textContent)") == [
            "JSON",
            "KITTI",
            "PNG",
        ]
        # everything came from this service
        assert all(url.startswith((address, "blob:", "data:", "about:")) for url in browser.requests())
