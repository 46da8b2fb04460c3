"""Templates: the one function that opens them, both in an installed agent and in a checkout."""

from __future__ import annotations

from pathlib import Path

# In a checkout it is a link to the folder at the top, in a wheel or a package a folder with the same files: one path.
FOLDER = Path(__file__).parents[1] / "templates"


def render(name: str, /, *, folder: Path = FOLDER, **values: object) -> str:
    """Fill the template of that name, such as `user-data/shell.sh`, and return the text.

    A value that the template uses and does not get is an error (jinja2's UndefinedError). In a NAME.html values
    are escaped; elsewhere they are not, since each language has its own rules: quote them before.
    """
    import jinja2  # noqa: PLC0415 -- 63 ms that no command on a host pays

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder, encoding="utf-8"),
        autoescape=name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(values)
