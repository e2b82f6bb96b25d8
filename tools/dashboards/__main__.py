"""Writes deploy/grafana: `PYTHONPATH=tools python -m dashboards`."""

from dashboards.files import FOLDER, made


def main() -> None:
    """Writes every file, and takes away dashboards that are made no more."""
    texts = made()
    for path in FOLDER.glob("dashboards/*/*.json"):
        if path.relative_to(FOLDER).as_posix() not in texts:
            path.unlink()
    for name, text in texts.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    print(f"{len(texts)} files below {FOLDER}")


if __name__ == "__main__":
    main()
