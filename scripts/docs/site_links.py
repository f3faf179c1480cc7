"""site_links.py FOLDER: every link within the built site leads to a file, and to an anchor that is there."""

import os
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

root = os.path.abspath(sys.argv[1])


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.anchors, self.links = set(), []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        link = attributes.get("href" if tag == "a" else "src" if tag == "img" else "")
        if link:
            self.links.append(link)


pages = {}
for base, _, files in os.walk(root):
    for file in files:
        if file.endswith(".html"):
            path = os.path.join(base, file)
            pages[path] = Page()
            with open(path, encoding="utf-8") as text:
                pages[path].feed(text.read())

dead, checked = [], 0
for path, page in pages.items():
    # All chapters on one page, for printing: the same links once more; the page of errors is served anywhere.
    # report/ is an example of what the program writes, committed without its largest figures.
    if os.path.basename(path) in ("print.html", "404.html") or os.path.relpath(path, root).startswith("report/"):
        continue
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        checked += 1
        target = os.path.normpath(os.path.join(os.path.dirname(path), unquote(parts.path))) if parts.path else path
        if not os.path.exists(target):
            dead.append(f"{os.path.relpath(path, root)}: {link}: no such page")
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
            dead.append(f"{os.path.relpath(path, root)}: {link}: no such heading")
print("\n".join(sorted(set(dead)) + [f"{checked} links in {len(pages)} pages, {len(set(dead))} dead"]))
sys.exit(bool(dead) or not checked)
