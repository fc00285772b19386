"""A version's way through the stages to production: `./cloudtrial release`. docs/release.md."""
