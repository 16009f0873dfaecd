"""Coverage-guided fuzzing of the readers: ``python -m tests.fuzz.fuzz_scenes GROUP [SECONDS]``.

Needs the extra ``fuzz`` (atheris). Findings are told once for each place in the code and do not
end the run; their inputs are saved in ``tests/fuzz/findings/``. After they are fixed, they belong
into ``tests/fuzz/corpus/``, which ``test_corpus.py`` replays.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from hashlib import sha256
from pathlib import Path

import atheris

_INCLUDED = ["render.scenes", "render.export.camera_path"]
with atheris.instrument_imports(include=_INCLUDED):  # pyright: ignore
    from tests.fuzz.targets import GROUPS, Feeder

HERE = Path(__file__).parent
LARGEST = 8192  # bytes of an input
TIMEOUT, MEMORY = 20, 2000  # seconds of an input; megabytes of the process


class Finder:
    """Feeds inputs and keeps what goes wrong."""

    def __init__(self, group: str, folder: Path) -> None:
        self.group = group
        self.feeder = Feeder(group, folder)
        self.found: set[tuple[str, str]] = set()

    def one(self, data: bytes) -> None:
        """One input of the fuzzer."""
        try:
            self.feeder.feed(data)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f"{f.filename}:{f.lineno}" for f in frames if "/render/" in f.filename]
            key = (type(error).__name__, ours[-1] if ours else "")
            if key not in self.found:
                self.found.add(key)
                self.keep(data)
                traceback.print_exc()

    def keep(self, data: bytes) -> None:
        """Save an input under the hash of its content."""
        folder = HERE / "findings" / self.group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / sha256(data).hexdigest()[:12]).write_bytes(data)


def main() -> None:
    """Fuzz one group for a while, from healthy files and the corpus."""
    group = sys.argv[1] if len(sys.argv) > 1 else ""
    if group not in GROUPS:
        sys.exit(f"expected one of {', '.join(GROUPS)}")
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    work = Path(tempfile.mkdtemp(prefix=f"fuzz_{group}_"))
    finder = Finder(group, work / "scenes")
    inputs = work / "inputs"
    inputs.mkdir()
    for number, seed in enumerate(finder.feeder.seeds()):
        (inputs / f"seed_{number}").write_bytes(seed)
    known = HERE / "corpus" / group
    arguments = [
        sys.argv[0], str(inputs), *([str(known)] if known.is_dir() else []),
        f"-max_total_time={seconds}", f"-max_len={LARGEST}", f"-timeout={TIMEOUT}",
        f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={work}/", "-print_final_stats=1",
    ]  # fmt: skip
    print(f"inputs and artifacts: {work}", flush=True)
    atheris.Setup(arguments, finder.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
