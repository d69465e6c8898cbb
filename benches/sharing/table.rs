use std::fmt;

/// Columns as wide as their widest cell; numbers to the right.
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned)],
        }
    }

    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    fn width(&self, column: usize) -> usize {
        let widths = self.rows.iter().map(|row| row[column].len());
        widths.max().unwrap_or_default()
    }

    fn is_number(&self, column: usize) -> bool {
        let cells = self.rows.iter().skip(1).map(|row| &row[column]);
        cells.clone().all(|cell| cell.parse::<f64>().is_ok())
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                let width = self.width(column);
                match self.is_number(column) {
                    true => write!(f, "  {cell:>width$}")?,
                    false => write!(f, "  {cell:<width$}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
