"""The page: what is written is shown, never run."""

from drnet.pipelines.looking import page


def test_text_is_escaped_everywhere() -> None:
    evil = "<script>alert(1)</script>"
    parts = [
        page.heading(evil),
        page.paragraph(evil),
        page.picture('x" onerror="y', evil),
        page.table([evil], [[evil]]),
        page.numbers([(evil, evil)]),
        page.commands([evil]),
    ]
    text = page.page(evil, parts).decode()
    assert "<script" not in text
    assert 'onerror="' not in text
    assert text.count("&lt;script&gt;") == 11


def test_a_table_has_its_rows() -> None:
    assert page.table(["a", "b"], [["1", "2"], ["3", "4"]]).count("<tr>") == 3
