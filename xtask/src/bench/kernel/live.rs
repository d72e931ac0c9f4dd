pub(super) fn measure(_rounds: usize) -> Result<(), String> {
    Ok(())
}
