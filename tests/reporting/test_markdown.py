"""The short report."""

from xclip_module.reporting.template import plain


def test_foreign_text_stays_text_in_the_short_report(made):
    text = (made.folder / "report.md").read_text()
    assert "<script>" not in text.split("## Environment")[0]
    assert plain("| `c` | [x](y)") == r"\| \`c\` \| \[x\](y)"
