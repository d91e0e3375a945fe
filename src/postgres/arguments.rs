use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

/// The arguments of a call from one on, counted from 0, each with its type.
///
/// # Safety
///
/// `fcinfo` is that of the current call.
pub unsafe fn arguments<'a>(fcinfo: pg_sys::FunctionCallInfo, from: usize) -> Vec<DatumWithOid<'a>> {
    // SAFETY: the caller's; there are as many arguments as the call says, which live as long as it.
    unsafe {
        let given = (*fcinfo).args.as_slice((*fcinfo).nargs as usize);
        let with_type = |(place, argument): (usize, &pg_sys::NullableDatum)| {
            let type_oid = pg_sys::get_fn_expr_argtype((*fcinfo).flinfo, place as i32);
            match argument.isnull {
                true => DatumWithOid::null_oid(type_oid),
                false => DatumWithOid::new(argument.value, type_oid),
            }
        };
        given.iter().enumerate().skip(from).map(with_type).collect()
    }
}
