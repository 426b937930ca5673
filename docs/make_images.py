"""Take the pictures that the README shows, from Dagster's UI on a home with a demo market.

    mdplatform --home HOME demo; mdplatform --home HOME ui --port 3111
    python docs/make_images.py http://127.0.0.1:3111

Needs playwright (`pip install playwright`) and a Chromium, whose path CHROMIUM names (default /usr/bin/chromium).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


def main(url: str) -> None:
    """Write each picture into `docs/images`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=FLAGS
        )
        page = browser.new_page(viewport={"width": 1500, "height": 700})
        asset_graph(page, url)
        page.set_viewport_size({"width": 1500, "height": 900})
        partition(page, url)
        browser.close()


def asset_graph(page: Page, url: str) -> None:
    """Take the lineage graph around `bars`, once every asset shows its state."""
    page.goto(f"{url}/assets/bars?view=lineage&lineageScope=neighbors", wait_until="networkidle")
    page.get_by_text("technical_indicators").last.wait_for(timeout=30_000)
    page.get_by_text("% filled").nth(2).wait_for(timeout=60_000)
    page.screenshot(path=IMAGES / "asset-graph.png")


def partition(page: Page, url: str) -> None:
    """Take one materialization's metadata."""
    page.goto(f"{url}/assets/bars?view=events", wait_until="networkidle")
    page.get_by_text("dagster/row_count").first.wait_for(timeout=30_000)
    page.screenshot(path=IMAGES / "materialization.png")


if __name__ == "__main__":
    main(sys.argv[1])
