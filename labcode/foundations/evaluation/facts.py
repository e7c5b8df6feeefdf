"""A table of facts on the page."""


class Facts(dict):
    """What a chapter's trainings share: what -> how, shown as a table."""

    def _repr_markdown_(self) -> str:
        return "\n".join(["| the stage | |", "|---|---|", *(f"| {what} | {how} |" for what, how in self.items())])
