"""What a run folder or a sweep shows: wording, tables, pages, charts. Reads files, trains nothing."""
