"""The guide: its pages, and the catalogue of systems that one page and a README table are made from."""
