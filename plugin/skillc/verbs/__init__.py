"""One file a verb; each exports `command` and is imported only when its verb is asked for."""
