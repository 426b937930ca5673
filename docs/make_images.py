"""Take the pictures that the documents show, from Dagster's UI on a home with a demo market.

    mdplatform --home HOME demo
    mdplatform --home HOME materialize returns_panel correlation_matrix composite_indicators
    mdplatform --home HOME materialize volume_profile --symbols ETHUSDT --from DAY
    mdplatform --home HOME ui --port 3111
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
        page = browser.new_page(viewport={"width": 1700, "height": 1000})
        asset_graph(page, url)
        page.set_viewport_size({"width": 1500, "height": 900})
        partition(page, url)
        profile(page, url)
        browser.close()


def asset_graph(page: Page, url: str) -> None:
    """Take the lineage graph of what follows from `bars`, once every asset shows its state."""
    page.goto(f"{url}/assets/bars?view=lineage&lineageScope=downstream", wait_until="networkidle")
    page.get_by_role("button", name="All", exact=True).click(timeout=30_000)
    page.get_by_text("correlation_matrix").last.wait_for(timeout=30_000)
    page.get_by_text("% filled").nth(6).wait_for(timeout=60_000)
    page.wait_for_timeout(2_000)  # the graph slides into its place
    page.screenshot(path=IMAGES / "asset-graph.png")


def partition(page: Page, url: str) -> None:
    """Take one materialization's metadata."""
    page.goto(f"{url}/assets/bars?view=events", wait_until="networkidle")
    page.get_by_text("dagster/row_count").first.wait_for(timeout=30_000)
    page.screenshot(path=IMAGES / "materialization.png")


def profile(page: Page, url: str) -> None:
    """Take the picture of the newest volume profile that was materialized."""
    page.goto(f"{url}/assets/volume_profile?view=events", wait_until="networkidle")
    page.get_by_text("[Show Markdown]").first.click(timeout=30_000)
    picture = page.get_by_role("dialog").locator("img").first
    picture.wait_for(timeout=30_000)
    picture.screenshot(path=IMAGES / "volume-profile.png")


if __name__ == "__main__":
    main(sys.argv[1])
