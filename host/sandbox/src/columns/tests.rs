//! Columns that are right come back as they went; columns that are wrong are refused.
